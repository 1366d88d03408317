//! On a terminal: colour, Ctrl-C, questions; and how much is said.
//!
//! A pseudo-terminal is that of `script` (util-linux).

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use crate::support::{Process, World, device, eventually};

const CTRL_C: &[u8] = b"\x03";
const COLOUR: &str = "\u{1b}[";

/// A command line of `sh` on a terminal of its own.
struct Terminal<'w> {
    world: &'w World,
    child: Child,
}

impl<'w> Terminal<'w> {
    fn start(world: &'w World, line: &str, variables: &[(&str, &str)]) -> Self {
        let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
        // Whoever began the tests may have had Ctrl-C ignored, as shells do for what they run in the background.
        let child = Command::new("env")
            .args(["--default-signal=INT", "script", "-qec", line, "/dev/null"])
            .current_dir(world.path(""))
            .env_clear()
            .envs([("PATH", path.as_str()), ("SHELL", "/bin/sh"), ("TERM", "xterm")])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(File::create(world.path("said/terminal")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { world, child }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.world.path("said/terminal")).unwrap()).into_owned()
    }

    async fn says(&self, text: &str) {
        let found = eventually(async || self.said().contains(text).then_some(())).await;
        assert!(found.is_some(), "no {text:?} in {}", self.said());
    }

    fn types(&mut self, keys: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(keys).unwrap();
    }

    async fn exit_code(mut self) -> (Option<i32>, String) {
        let ended = eventually(async || self.child.try_wait().unwrap()).await;
        (ended.and_then(|status| status.code()), self.said())
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn prepared(world: &World) -> Process {
    std::fs::create_dir(world.path("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_geminid"), world.path("bin/geminid")).unwrap();
    world.write("manifests/d1.yaml", &device("d1", 1));
    world.hub("state", "127.0.0.1:0").await
}

const ON_HUB: &str = "--hub-json state/hub.json --manifests manifests";

#[tokio::test]
async fn there_is_colour_on_terminals_alone_unless_somebody_says_otherwise() {
    let world = World::new();
    let _hub = prepared(&world).await;
    let quiet = [("NO_COLOR", "1")];
    for (on_terminal, flags, variables, coloured) in [
        (true, "", &[][..], true),
        (true, "", &quiet[..], false),
        (true, "--color never", &[], false),
        (true, "--color auto", &[], true),
        (true, "--color always", &quiet, true),
        (false, "", &[], false),
        (false, "--color auto", &[], false),
        (false, "--color always", &[], true),
        (false, "--color always", &quiet, true),
    ] {
        let place = format!("{on_terminal} {flags} {variables:?}");
        let line = format!("plan {ON_HUB} {flags}");
        let (code, said) = if on_terminal {
            Terminal::start(&world, &format!("geminid {line}"), variables).exit_code().await
        } else {
            let mut process = world.start_with(&line.split_whitespace().collect::<Vec<_>>(), variables);
            (Some(process.exit_code().await), process.stdout())
        };
        assert_eq!((code, said.contains(COLOUR)), (Some(1), coloured), "{place}: {said}");
        assert!(said.contains("tags.plant"), "{place}: {said}");
    }
}

#[tokio::test]
async fn ctrl_c_ends_what_runs_until_then_with_0_and_leaves_the_terminal_as_it_was() {
    let world = World::new();
    let _hub = prepared(&world).await;
    world.client("state").create("p0").await;
    let daemon = world.run_on("state/hub.json", &[]).await;
    daemon.metric_is(r#"geminid_twins{hub="embedded",state="in_sync"}"#, 1.0).await;
    let server = daemon.announced("status ").trim_start_matches("geminid get ").to_owned();
    let free = "--hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0";
    for (line, says) in [
        ("query 'SELECT deviceId FROM devices' --watch 1s --hub-json state/hub.json".to_owned(), "2 rows"),
        (format!("get --watch 1s {server}"), "in_sync"),
        ("device --count 1 --id 'p{n}' --hub-json state/hub.json".to_owned(), "fleet"),
        (format!("hub --state-dir other {free}"), "stop"),
        (format!("run --embedded-hub --state-dir third --listen 127.0.0.1:0 --manifests manifests {free}"), "stop"),
    ] {
        // The shell goes on after Ctrl-C, and tells how the terminal is.
        let script = format!("trap : INT; stty -g > before; geminid {line}; code=$?; stty -g > after; exit $code");
        let mut terminal = Terminal::start(&world, &script, &[]);
        terminal.says(says).await;
        terminal.types(CTRL_C);
        let (code, said) = terminal.exit_code().await;
        assert_eq!(code, Some(0), "{line}: {said}");
        let stty = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
        assert_eq!(stty("before"), stty("after"), "{line}");
        let times = |sequence: &str| said.matches(sequence).count();
        assert_eq!(times("\u{1b}[?25l"), times("\u{1b}[?25h"), "{line}: a cursor that is hidden is shown again");
    }
}

#[tokio::test]
async fn a_question_that_is_not_answered_with_yes_writes_nothing() {
    let world = World::new();
    let _hub = prepared(&world).await;
    let client = world.client("state");
    let (code, ..) = world.run(&["apply", "--hub-json", "state/hub.json", "--manifests", "manifests"]).await;
    assert_eq!(code, 0);
    let before = client.twin("d1").await;
    world.write("manifests/d1.yaml", &device("d1", 1).replace("  tags: {plant: Redmond43}\n", ""));
    for (keys, expected) in [(&b"n\n"[..], 2), (b"\n", 2), (b"\x04", 2), (CTRL_C, 130)] {
        for line in [
            format!("apply {ON_HUB}"),
            format!("adopt --from demo --owner new {ON_HUB}"),
            "release --all --hub-json state/hub.json".to_owned(),
        ] {
            let mut terminal = Terminal::start(&world, &format!("geminid {line}"), &[]);
            terminal.says("[y/N]").await;
            terminal.types(keys);
            let (code, said) = terminal.exit_code().await;
            assert_eq!(code, Some(expected), "{line} {keys:?}: {said}");
            assert_eq!(client.twin("d1").await, before, "{line} {keys:?}");
        }
    }
    let mut terminal = Terminal::start(&world, &format!("geminid apply {ON_HUB}"), &[]);
    terminal.says("[y/N]").await;
    terminal.types(b"y\n");
    let (code, said) = terminal.exit_code().await;
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(client.twin("d1").await, before, "yes is yes");
}

#[tokio::test]
async fn quiet_says_results_and_errors_and_verbose_more_of_ourselves_and_then_of_all() {
    let world = World::new();
    let _hub = prepared(&world).await;
    let said = async |level: usize, flags: &[&str]| {
        world.write("manifests/d1.yaml", &device("d1", level));
        let verb = ["apply", "--hub-json", "state/hub.json", "--manifests", "manifests"];
        let (code, out, err) = world.run(&[&verb, flags].concat()).await;
        assert_eq!((code, out.as_str()), (0, "1 twin in sync, 0 not\n"), "{err}");
        let has = |level: &str| err.lines().any(|line| line.split_whitespace().nth(1) == Some(level));
        ["INFO", "DEBUG", "TRACE"].map(has)
    };
    assert_eq!(said(2, &["-q"]).await, [false, false, false]);
    assert_eq!(said(3, &[]).await, [true, false, false]);
    assert_eq!(said(4, &["-v"]).await, [true, true, false]);
    assert_eq!(said(5, &["-vv"]).await, [true, true, true]);
    let (code, _, err) = world.run(&["apply", "-q", "-v"]).await;
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
    let (code, out, err) = world.run(&["plan", "-q", "--hub-json", "nowhere.json"]).await;
    assert!(code == 2 && out.is_empty() && err.starts_with("error: ") && err.lines().count() == 1, "{err}");
}
