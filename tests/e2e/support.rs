//! What the tests of the real binary share: a world of files, processes in it, and ways to wait.
//!
//! Invariants: a process ends with its value, by its own id; nothing waits longer than [`PATIENCE`]; ports are always
//! free ones; and when a world ends well, no key that it ever held stands in anything its processes said.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use geminid::hub::{ConnectionString, ReadTwins as _, RestHub, RestOptions, WriteTwins as _};
use geminid::twin::{DeviceId, ETag, MergePatch, Section, Twin, TwinRef, Value};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Far longer than anything takes on an idle machine; whoever waits so long fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A folder with manifests, hub states and everything that processes said.
pub(crate) struct World {
    folder: tempfile::TempDir,
    processes: Cell<usize>,
    secrets: RefCell<BTreeSet<String>>,
}

impl World {
    /// An empty world: a folder of manifests without any.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        fs::create_dir(folder.path().join("said")).unwrap();
        Self { folder, processes: Cell::new(0), secrets: RefCell::default() }
    }

    /// A path in the world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file at once, as an editor or Git does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let fresh = path.with_file_name(".fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, &path).unwrap();
    }

    /// What must never be said.
    pub(crate) fn keep_secret(&self, secret: &str) {
        assert!(secret.len() > 10, "short texts occur by chance");
        self.secrets.borrow_mut().insert(secret.to_owned());
    }

    /// A process of the binary, in the world's folder and without the environment of the test.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        self.start_with(arguments, &[])
    }

    /// The same with variables.
    pub(crate) fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        self.spawn(&mut Command::new(env!("CARGO_BIN_EXE_geminid")), arguments, variables)
    }

    /// The same by another program that becomes the binary.
    pub(crate) fn spawn(&self, program: &mut Command, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let number = self.processes.get();
        self.processes.set(number + 1);
        let stream = |name: &str| self.path(&format!("said/{number}.{name}"));
        let (stdout, stderr) = (stream("stdout"), stream("stderr"));
        let child = program
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Process { child, stdout, stderr, arguments: arguments.join(" ") }
    }

    /// Runs to the end: exit code, standard output, standard error.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut process = self.start(arguments);
        let code = process.exit_code().await;
        (code, process.stdout(), process.stderr())
    }

    /// `geminid hub` on `address`, its folder being `state`; returns when it is ready.
    pub(crate) async fn hub(&self, state: &str, address: &str) -> Process {
        let process = self.start(&["hub", "--hub-https", address, "--hub-mqtts", "127.0.0.1:0", "--state-dir", state]);
        process.wait_for("the hub's announcement", || process.stdout().contains("stop")).await;
        self.client(state);
        process
    }

    /// `geminid run` on an embedded hub whose folder is `state`; returns when it announced itself.
    pub(crate) async fn run_embedded(&self, state: &str, more: &[&str]) -> Process {
        self.run_embedded_with(state, &[&["--manifests", "manifests"], more].concat()).await
    }

    /// The same without manifests; `options` say where these are.
    pub(crate) async fn run_embedded_with(&self, state: &str, options: &[&str]) -> Process {
        let fixed = ["run", "--embedded-hub", "--state-dir", state];
        let free = ["--listen", "127.0.0.1:0", "--hub-https", "127.0.0.1:0", "--hub-mqtts", "127.0.0.1:0"];
        let process = self.start(&[&fixed[..], &free, options].concat());
        process.wait_for("the daemon's announcement", || process.stdout().contains("stop")).await;
        self.client(state);
        process
    }

    /// `geminid run` on the hub of `hub_json`; returns when it announced itself.
    pub(crate) async fn run_on(&self, hub_json: &str, more: &[&str]) -> Process {
        let fixed = ["run", "--hub-json", hub_json, "--manifests", "manifests", "--listen", "127.0.0.1:0"];
        let process = self.start(&[&fixed[..], more].concat());
        process.wait_for("the daemon's announcement", || process.stdout().contains("stop")).await;
        process
    }

    /// What `hub.json` of `state` says.
    pub(crate) fn hub_json(&self, state: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(state).join("hub.json")).unwrap()).unwrap()
    }

    /// Another client of the hub in `state`, with all rights.
    pub(crate) fn client(&self, state: &str) -> Client {
        let json = self.hub_json(state);
        for name in ["ownerConnectionString", "serviceConnectionString"] {
            let (_, key) = json[name].as_str().unwrap().split_once("SharedAccessKey=").unwrap();
            self.keep_secret(key);
        }
        let connection = ConnectionString::parse(json["ownerConnectionString"].as_str().unwrap()).unwrap();
        let mut options = RestOptions::new(geminid::app::wall_clock);
        options.extra_ca_pem = Some(fs::read(json["caFile"].as_str().unwrap()).unwrap());
        Client(RestHub::new(connection, &options).unwrap())
    }

    /// The hub in `state` for a client that speaks HTTP by itself: its address with the port, a token with all rights
    /// that lasts ten minutes, and a client that trusts its authority.
    pub(crate) fn raw_client(&self, state: &str) -> (String, String, reqwest::Client) {
        let json = self.hub_json(state);
        let text = json["ownerConnectionString"].as_str().unwrap();
        let part = |name: &str| text.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap();
        let (address, policy) = (part("HostName"), part("SharedAccessKeyName"));
        let host = address.split(':').next().unwrap();
        let expiry = geminid::app::wall_clock().as_second() + 600;
        let base64 = base64::engine::general_purpose::STANDARD;
        let key = base64.decode(part("SharedAccessKey")).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{host}\n{expiry}").as_bytes());
        let signature = base64.encode(mac.finalize().into_bytes());
        let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
        let ca = reqwest::Certificate::from_pem(&fs::read(json["caFile"].as_str().unwrap()).unwrap()).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).add_root_certificate(ca).build().unwrap();
        let token = format!("SharedAccessSignature sr={host}&sig={signature}&se={expiry}&skn={policy}");
        (address.to_owned(), token, http)
    }

    /// Registers a module on the hub in `state`, as a deployment tool does: geminid itself never does that.
    pub(crate) async fn create_module(&self, state: &str, device: &str, module: &str) {
        let (address, token, http) = self.raw_client(state);
        let answer = http
            .put(format!("https://{address}/devices/{device}/modules/{module}?api-version=2021-04-12"))
            .header("Authorization", token)
            .json(&serde_json::json!({ "deviceId": device, "moduleId": module }))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.path("said")).unwrap() {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for secret in self.secrets.borrow().iter() {
                assert!(!text.contains(secret), "{} holds a secret", path.display());
            }
            assert!(!text.contains("&sig="), "{} holds a token", path.display());
            assert!(!text.contains("panicked at"), "{text}");
        }
    }
}

/// A process that ends when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    arguments: String,
}

impl Process {
    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard output so far.
    pub(crate) fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// How many lines of standard error hold `text`.
    pub(crate) fn lines_with(&self, text: &str) -> usize {
        self.stderr().lines().filter(|line| line.contains(text)).count()
    }

    /// The rest of the line of the announcement that begins with `label`.
    pub(crate) fn announced(&self, label: &str) -> String {
        let stdout = self.stdout();
        let line = stdout.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("no {label:?} in {stdout}")).trim().to_owned()
    }

    /// Waits until `is_so`; `what` is said when it never is.
    pub(crate) async fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        self.wait_until(what, async || is_so().then_some(())).await;
    }

    /// Waits until `look` finds something.
    pub(crate) async fn wait_until<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        match eventually(look).await {
            Some(found) => found,
            None => panic!("geminid {}: no {what}; it said\n{}{}", self.arguments, self.stdout(), self.stderr()),
        }
    }

    /// Waits for a line of standard error that holds `text`.
    pub(crate) async fn says(&self, text: &str) {
        self.wait_for(&format!("line with {text:?}"), || self.lines_with(text) > 0).await;
    }

    /// Sends a signal by its name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "the process is there to take the signal");
    }

    /// `kill -9`, and gone when it returns.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; -1 stands for a signal.
    pub(crate) async fn exit_code(&mut self) -> i32 {
        let child = &mut self.child;
        let ended = eventually(async || child.try_wait().unwrap()).await;
        let status: ExitStatus = ended.unwrap_or_else(|| panic!("it did not end; it said\n{}", self.stderr()));
        status.code().unwrap_or(-1)
    }

    /// Stops it as Ctrl-C does and answers the exit code.
    pub(crate) async fn interrupt(&mut self) -> i32 {
        self.signal("INT");
        self.exit_code().await
    }

    /// Asks its own port; status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).await.unwrap()
    }

    /// The same where others may take the connection's place.
    pub(crate) async fn try_get(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let address = self.announced("metrics ");
        let address = address.trim_end_matches("/metrics");
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let answer = http.get(format!("{address}{path}")).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The value of the series that begins with `series`.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// Whether the controller knows so many twins to be in sync.
    pub(crate) async fn metric_in_sync(&self, twins: u32) -> Option<()> {
        let in_sync = self.metric(r#"geminid_twins{hub="embedded",state="in_sync"}"#).await?;
        ((in_sync - f64::from(twins)).abs() < 1e-9).then_some(())
    }

    /// Waits until the series has the value.
    pub(crate) async fn metric_is(&self, series: &str, value: f64) {
        let is = async || self.metric(series).await.filter(|now| (now - value).abs() < 1e-9);
        self.wait_until(&format!("{series} {value}"), is).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another client of a hub: who edits twins behind the daemon's back.
pub(crate) struct Client(RestHub);

impl Client {
    /// Reads a device's twin.
    pub(crate) async fn twin(&self, device: &str) -> Twin {
        self.0.get_twin(&device_ref(device)).await.unwrap()
    }

    /// Reads a module's twin.
    pub(crate) async fn module_twin(&self, device: &str, module: &str) -> Twin {
        let module = geminid::twin::ModuleId::new(module).unwrap();
        self.0.get_twin(&TwinRef::module(DeviceId::new(device).unwrap(), module)).await.unwrap()
    }

    /// Reads a device's twin; `None` when it is not there or the hub is not.
    pub(crate) async fn find(&self, device: &str) -> Option<Twin> {
        self.0.get_twin(&device_ref(device)).await.ok()
    }

    /// Registers a device.
    pub(crate) async fn create(&self, device: &str) {
        self.0.create_device(&DeviceId::new(device).unwrap()).await.unwrap();
    }

    /// Sets one leaf, reading again whenever somebody else wrote in between.
    pub(crate) async fn set(&self, device: &str, section: Section, keys: &[&str], value: Value) -> Twin {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut patch = MergePatch::default();
        patch.set(section, &keys, value);
        let written = eventually(async || {
            let live = self.twin(device).await;
            match self.0.patch_twin(&live.twin_ref, &patch, &live.etag).await {
                Ok(after) => Some(after),
                Err(geminid::hub::HubError::PreconditionFailed) => None,
                Err(error) => panic!("{error}"),
            }
        });
        written.await.expect("somebody wrote in between each time")
    }

    /// Sets a tag if the hub is there and nobody wrote in between; whether it was acknowledged.
    pub(crate) async fn try_tag(&self, device: &str, tag: &str, value: u64) -> bool {
        let Some(live) = self.find(device).await else { return false };
        let mut patch = MergePatch::default();
        patch.set(Section::Tags, &[tag.to_owned()], Value::parse_json(&value.to_string()).unwrap());
        self.0.patch_twin(&live.twin_ref, &patch, &live.etag).await.is_ok()
    }
}

/// A device by its id.
pub(crate) fn device_ref(device: &str) -> TwinRef {
    TwinRef::device(DeviceId::new(device).unwrap())
}

/// Service writes of a twin: the number in its etag less the one of its creation (`iot-hub.md` 1.4).
pub(crate) fn service_writes(etag: &ETag) -> u64 {
    let bytes = base64::engine::general_purpose::STANDARD.decode(etag.as_str()).unwrap();
    u64::from_be_bytes(bytes.try_into().unwrap()) - 1
}

/// A leaf of a section, by its keys.
pub(crate) fn leaf(twin: &Twin, section: Section, keys: &[&str]) -> Option<Value> {
    Value::Object(twin.section(section).clone()).get(keys.iter().copied()).cloned()
}

/// A manifest of one device with a power level.
pub(crate) fn device(name: &str, power_level: usize) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {name}}}\n\
         spec:\n  create: true\n  tags: {{plant: Redmond43}}\n  properties: {{desired: {{power_level: {power_level}}}}}\n"
    )
}

/// Whether the power level of the twin is this.
pub(crate) fn has_power_level(twin: &Twin, power_level: usize) -> bool {
    leaf(twin, Section::Desired, &["power_level"]) == Some(Value::parse_json(&power_level.to_string()).unwrap())
}

/// Looks again and again, until something is found or patience ends.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looking = async {
        let mut interval = tokio::time::interval(LOOK);
        loop {
            interval.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.ok()
}

/// A copy of the repository's manifests that asks its queries often enough for a test.
pub(crate) fn example_manifests(world: &World) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/redmond43");
    let twin = fs::read_to_string(folder.join("my-device.yaml")).unwrap();
    let queries = fs::read_to_string(folder.join("queries.yaml")).unwrap();
    let often = queries.replace("interval: 30s", "interval: 5s").replace("timeout: 10s", "timeout: 4s");
    assert_ne!(often, queries, "the example's queries have an interval to replace");
    world.write("manifests/my-device.yaml", &twin);
    world.write("manifests/queries.yaml", &often);
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}
