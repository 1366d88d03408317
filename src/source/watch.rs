//! Noticing that a source may have changed.
//!
//! Invariant: hints only. Every hint and every poll makes the caller load again, and the load compares contents; so a
//! missed event costs at most one poll period, and an event too many costs one load that finds nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::layout::Layout;

/// The time after the first failed load before the source is loaded again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Tries to watch one root before polling has to do.
const ATTEMPTS_MAX: usize = 3;
/// Entries named in one hint; more of them, and reading everything is as well.
const ENTRIES_MAX: usize = 256;

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Anything.
    Whole,
    /// These entries, by their real paths; never empty. Folders and what is no manifest may be among them.
    Entries(BTreeSet<PathBuf>),
}

/// How soon a [`Watcher`] speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// Quiet time after an event before the hint is given.
    pub debounce: Duration,
    /// The longest a stream of events can put the hint off.
    pub debounce_max: Duration,
    /// The time after which a hint is given without any event.
    pub poll: Duration,
    /// How often a root that is gone is looked for.
    pub poll_missing: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(200),
            debounce_max: Duration::from_secs(2),
            poll: Duration::from_secs(60),
            poll_missing: Duration::from_secs(1),
        }
    }
}

/// Watches the root of a source, the folder of each symlink on the way to it, and everything beneath it.
#[derive(Debug)]
pub struct Watcher {
    root: PathBuf,
    options: WatchOptions,
    signal: Arc<Signal>,
    armed: Option<Armed>,
    /// What the next hint says of the events taken for it so far.
    pending: Option<Hint>,
    /// When the next hint is due without any event.
    poll_at: Option<Instant>,
    /// The time to the next hint while loads fail.
    retry: Option<Duration>,
    /// Whether the root was found when last looked for.
    was_found: bool,
    /// Whether it was said already that events do not work.
    has_warned: bool,
}

/// What the watching thread tells.
#[derive(Debug, Default)]
struct Signal {
    changed: Notify,
    /// What was named since the last hint.
    entries: Mutex<Option<Hint>>,
    /// Events were lost, so folders may be unwatched: watch anew.
    is_incomplete: AtomicBool,
}

/// The watches in place. Replaced whole when the layout changes: the new ones are set before the old ones go.
#[derive(Debug)]
struct Armed {
    layout: Layout,
    /// `None` when events do not work here; then the poll is all there is. Dropping it ends the watching.
    _events: Option<RecommendedWatcher>,
}

/// What a look at the root found.
enum Look {
    Missing,
    Same,
    Armed(Box<Armed>, Option<notify::Error>),
}

impl Watcher {
    /// A watcher of the folder `root`. Nothing is watched before the first [`Self::changed`].
    #[must_use]
    pub fn new(root: PathBuf, options: WatchOptions) -> Self {
        Self {
            root,
            options,
            signal: Arc::default(),
            armed: None,
            pending: None,
            poll_at: None,
            retry: None,
            was_found: true,
            has_warned: false,
        }
    }

    /// Returns when the source may have changed since the last return: after an event and the quiet that follows it,
    /// when the root has come, gone or moved, or when a poll is due. The first call returns at once, with the watches
    /// in place; so does a call after the layout changed. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Hint {
        if self.wait().await {
            self.pending = Some(Hint::Whole);
        }
        self.poll_at = None;
        self.pending.take().unwrap_or(Hint::Whole)
    }

    /// What was hinted at could not be loaded: without any event the next hint comes sooner than a poll, and each time
    /// this is said again after twice the time, up to that of a poll.
    pub fn load_failed(&mut self) {
        let next = self.retry.map_or(RETRY_FIRST, |last| last * 2);
        self.retry = Some(next.min(self.options.poll));
    }

    /// What was hinted at was loaded.
    pub fn loaded(&mut self) {
        self.retry = None;
    }

    /// Waits until a hint is due; answers whether it is one for the whole, whatever events said.
    async fn wait(&mut self) -> bool {
        if self.look().await {
            return true;
        }
        let poll = *self.poll_at.get_or_insert_with(|| now() + self.retry.unwrap_or(self.options.poll));
        loop {
            let wake = if self.armed.is_some() { poll } else { poll.min(now() + self.options.poll_missing) };
            let has_event = self.pending.is_some() || self.signal.is_set();
            if has_event || timeout_at(wake, self.signal.changed.notified()).await.is_ok() {
                self.settle().await;
            }
            self.pending = merged(self.pending.take(), self.signal.take());
            // Look before returning: what changes after this is seen by the new watches, and what changed before it by
            // the load that follows.
            if self.look().await || now() >= poll {
                return true;
            }
            if self.pending.is_some() {
                return false;
            }
        }
    }

    /// Waits until events pause, at most `debounce_max`.
    async fn settle(&self) {
        let end = now() + self.options.debounce_max;
        while now() < end && timeout(self.options.debounce, self.signal.changed.notified()).await.is_ok() {}
    }

    /// Resolves the root and watches anew if it leads elsewhere; says whether it does.
    async fn look(&mut self) -> bool {
        let root = self.root.clone();
        let before = self.armed.as_ref().map(|armed| armed.layout.clone());
        let signal = Arc::clone(&self.signal);
        let forced = self.signal.is_incomplete.load(Ordering::Acquire);
        let look =
            tokio::task::spawn_blocking(move || look_at(&root, before.as_ref().filter(|_| !forced), &signal)).await;
        // A cancelled task means that the runtime ends; there is nothing to say any more.
        match look.unwrap_or(Look::Same) {
            Look::Same => false,
            Look::Missing => {
                self.armed = None;
                std::mem::replace(&mut self.was_found, false)
            }
            Look::Armed(armed, problem) => {
                self.signal.is_incomplete.store(false, Ordering::Release);
                self.armed = Some(*armed);
                self.was_found = true;
                if let (Some(error), false) = (problem, self.has_warned) {
                    self.has_warned = true;
                    let poll_s = self.options.poll.as_secs();
                    tracing::warn!(root = %self.root.display(), %error, poll_s, "cannot watch all of the manifests, polling for the rest");
                }
                true
            }
        }
    }
}

impl Signal {
    fn put(&self, hint: Hint) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        *entries = merged(entries.take(), Some(hint));
        drop(entries);
        self.changed.notify_one();
    }

    /// Whether something was named that no hint has said yet: a future dropped while it settled leaves it here.
    fn is_set(&self) -> bool {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<Hint> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One hint of two.
fn merged(one: Option<Hint>, other: Option<Hint>) -> Option<Hint> {
    match (one, other) {
        (Some(Hint::Entries(mut entries)), Some(Hint::Entries(more))) => {
            entries.extend(more);
            Some(if entries.len() > ENTRIES_MAX { Hint::Whole } else { Hint::Entries(entries) })
        }
        (None, hint) | (hint, None) => hint,
        (Some(Hint::Whole), Some(_)) | (Some(_), Some(Hint::Whole)) => Some(Hint::Whole),
    }
}

fn look_at(root: &Path, before: Option<&Layout>, signal: &Arc<Signal>) -> Look {
    let mut last = Look::Missing;
    for _ in 0..ATTEMPTS_MAX {
        let Ok(layout) = Layout::resolve(root) else { return Look::Missing };
        if before == Some(&layout) {
            return Look::Same;
        }
        let (watcher, problem) = watch(&layout, Arc::clone(signal));
        // A flip may have taken the old tree away under the watching: then another attempt is worth it.
        let is_done = problem.is_none();
        last = Look::Armed(Box::new(Armed { layout, _events: watcher }), problem);
        if is_done {
            break;
        }
    }
    last
}

/// Watches the folder of each link, and the tree. What can be watched is, whatever else fails; the first failure comes
/// back beside it.
fn watch(layout: &Layout, signal: Arc<Signal>) -> (Option<RecommendedWatcher>, Option<notify::Error>) {
    let handler = move |event: notify::Result<notify::Event>| match event {
        // Reading is an event too, ours included.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) && !event.need_rescan() => {}
        Ok(event) if !event.need_rescan() && !event.paths.is_empty() => {
            signal.put(Hint::Entries(event.paths.into_iter().collect()));
        }
        Ok(_) | Err(_) => {
            signal.is_incomplete.store(true, Ordering::Release);
            signal.put(Hint::Whole);
        }
    };
    let config = Config::default().with_follow_symlinks(false);
    let mut watcher = match <RecommendedWatcher as notify::Watcher>::new(handler, config) {
        Ok(watcher) => watcher,
        Err(error) => return (None, Some(error)),
    };
    let link_folders = layout.links.iter().filter_map(|link| link.path.parent());
    let folders = link_folders.map(|folder| (folder, RecursiveMode::NonRecursive));
    let mut problem = None;
    for (folder, mode) in folders.chain([(layout.root.as_path(), RecursiveMode::Recursive)]) {
        if let Err(error) = notify::Watcher::watch(&mut watcher, folder, mode) {
            problem.get_or_insert(error);
        }
    }
    (Some(watcher), problem)
}

#[expect(clippy::disallowed_methods, reason = "the thin loop that waits for events reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Loader;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Far longer than any hint takes; a test that waits so long fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Without a hint for so long, none is on its way.
    const QUIET: Duration = Duration::from_millis(100);

    /// No poll within a test, and quick to speak.
    fn options() -> WatchOptions {
        WatchOptions {
            debounce: Duration::from_millis(20),
            debounce_max: Duration::from_millis(200),
            poll: Duration::from_secs(3600),
            poll_missing: Duration::from_millis(20),
        }
    }

    /// Whether a hint comes. Hints that follow it for the same reason are taken too, so that the next one asked for is
    /// for something new.
    async fn is_hinted(watcher: &mut Watcher) -> bool {
        let is_hinted = timeout(PATIENCE, watcher.changed()).await.is_ok();
        while watcher.options.poll > PATIENCE && timeout(QUIET, watcher.changed()).await.is_ok() {}
        is_hinted
    }

    /// A watcher that has given its first hint.
    async fn armed(root: PathBuf) -> Watcher {
        let mut watcher = Watcher::new(root, options());
        assert!(is_hinted(&mut watcher).await, "the first call returns at once");
        watcher
    }

    fn flip(target: &str, link: &Path) {
        let new = link.with_file_name("flip");
        symlink(target, &new).unwrap();
        fs::rename(&new, link).unwrap();
    }

    #[tokio::test]
    async fn edits_renames_new_folders_and_removals_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("m");
        fs::create_dir(&root).unwrap();
        let mut watcher = armed(root.clone()).await;
        fs::write(root.join("a.yaml"), "1").unwrap();
        assert!(is_hinted(&mut watcher).await, "new file");
        fs::write(root.join("a.yaml"), "2").unwrap();
        assert!(is_hinted(&mut watcher).await, "edit");
        fs::write(root.join(".a.tmp"), "3").unwrap();
        fs::rename(root.join(".a.tmp"), root.join("a.yaml")).unwrap();
        assert!(is_hinted(&mut watcher).await, "rename over");
        fs::create_dir_all(root.join("x/y")).unwrap();
        fs::write(root.join("x/y/b.yaml"), "1").unwrap();
        assert!(is_hinted(&mut watcher).await, "new folder");
        fs::write(root.join("x/y/b.yaml"), "2").unwrap();
        assert!(is_hinted(&mut watcher).await, "edit in the new folder");
        fs::remove_dir_all(root.join("x")).unwrap();
        assert!(is_hinted(&mut watcher).await, "removal");
    }

    #[tokio::test]
    async fn every_flip_is_noticed_and_so_is_the_edit_after_it() {
        for (link, root) in [("current", "current"), ("current", "current/fleet"), ("m/..data", "m")] {
            let folder = tempfile::tempdir().unwrap();
            let base = folder.path();
            let within = if link == "current" { "" } else { "m/" };
            for revision in ["one", "two"] {
                fs::create_dir_all(base.join(within).join(revision).join("fleet")).unwrap();
            }
            symlink("one", base.join(link)).unwrap();
            let mut watcher = armed(base.join(root)).await;
            for revision in ["two", "one", "two"] {
                flip(revision, &base.join(link));
                assert!(is_hinted(&mut watcher).await, "flip of {link} to {revision}");
                let file = base.join(within).join(revision).join("fleet/a.yaml");
                fs::write(file, revision).unwrap();
                assert!(is_hinted(&mut watcher).await, "edit after the flip of {link} to {revision}");
            }
        }
    }

    #[tokio::test]
    async fn a_root_that_goes_and_comes_back_is_noticed_both_times_and_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("m");
        fs::create_dir(&root).unwrap();
        let mut watcher = armed(root.clone()).await;
        fs::rename(&root, folder.path().join("away")).unwrap();
        assert!(is_hinted(&mut watcher).await, "gone");
        assert!(watcher.armed.is_none());
        fs::create_dir(&root).unwrap();
        assert!(is_hinted(&mut watcher).await, "back");
        fs::write(root.join("a.yaml"), "1").unwrap();
        assert!(is_hinted(&mut watcher).await, "edit");
    }

    #[tokio::test]
    async fn a_root_that_is_missing_from_the_start_is_noticed_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("m");
        let mut watcher = armed(root.clone()).await;
        let waiting = timeout(Duration::from_millis(100), watcher.changed()).await;
        assert!(waiting.is_err(), "a missing root is told once");
        fs::create_dir(&root).unwrap();
        assert!(is_hinted(&mut watcher).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_failed_is_tried_again_after_a_pause_that_grows_to_that_of_a_poll() {
        let folder = tempfile::tempdir().unwrap();
        let poll = WatchOptions { poll: Duration::from_secs(60), ..WatchOptions::default() };
        let mut watcher = Watcher::new(folder.path().to_owned(), poll);
        watcher.changed().await;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            watcher.load_failed();
            assert_eq!(until_hint(&mut watcher).await, Duration::from_secs(seconds));
        }
        watcher.loaded();
        assert_eq!(until_hint(&mut watcher).await, Duration::from_secs(60));
    }

    async fn until_hint(watcher: &mut Watcher) -> Duration {
        let before = now();
        assert_eq!(watcher.changed().await, Hint::Whole);
        now() - before
    }

    #[tokio::test]
    async fn a_poll_comes_without_events_and_reading_is_no_event() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "1").unwrap();
        let mut watcher = armed(folder.path().to_owned()).await;
        fs::read(folder.path().join("a.yaml")).unwrap();
        assert!(timeout(Duration::from_millis(200), watcher.changed()).await.is_err(), "reading is no event");
        let poll = WatchOptions { poll: Duration::from_millis(20), ..options() };
        let mut watcher = Watcher::new(folder.path().to_owned(), poll);
        for _ in 0..3 {
            assert!(is_hinted(&mut watcher).await);
        }
    }

    #[tokio::test]
    async fn without_events_the_poll_is_all_there_is_and_a_new_layout_is_still_seen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("m");
        fs::create_dir(&root).unwrap();
        let poll = WatchOptions { poll: Duration::from_millis(20), ..options() };
        let mut watcher = Watcher::new(root.clone(), poll);
        let layout = Layout::resolve(&root).unwrap();
        watcher.armed = Some(Armed { layout, _events: None });
        for _ in 0..3 {
            assert!(is_hinted(&mut watcher).await);
            assert!(
                watcher.armed.as_ref().is_some_and(|armed| armed._events.is_none()),
                "the same layout stays as it is"
            );
        }
        fs::rename(&root, folder.path().join("away")).unwrap();
        fs::create_dir(&root).unwrap();
        assert!(is_hinted(&mut watcher).await);
        assert!(watcher.armed.is_some_and(|armed| armed._events.is_some()), "another folder is watched anew");
    }

    #[tokio::test]
    async fn a_hint_survives_the_future_that_waited_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let slow = WatchOptions { debounce: Duration::from_secs(2), debounce_max: PATIENCE, ..options() };
        let mut watcher = Watcher::new(folder.path().to_owned(), slow);
        assert!(is_hinted(&mut watcher).await);
        fs::write(folder.path().join("a.yaml"), "1").unwrap();
        // Ends while the event settles, or before it came.
        assert!(timeout(QUIET, watcher.changed()).await.is_err());
        assert!(is_hinted(&mut watcher).await);
    }

    #[tokio::test]
    async fn a_stream_of_events_puts_the_hint_off_only_so_long() {
        let folder = tempfile::tempdir().unwrap();
        let mut watcher = armed(folder.path().to_owned()).await;
        let file = folder.path().join("a.yaml");
        let stream = async {
            loop {
                fs::write(&file, "1").unwrap();
                tokio::task::yield_now().await;
            }
        };
        let is_in_time = tokio::select! {
            result = timeout(PATIENCE, watcher.changed()) => result.is_ok(),
            () = stream => false,
        };
        assert!(is_in_time);
    }

    /// The next hint, with those that follow it for the same reason.
    async fn hint(watcher: &mut Watcher) -> Option<Hint> {
        let mut hint = Some(timeout(PATIENCE, watcher.changed()).await.ok()?);
        while let Ok(more) = timeout(QUIET, watcher.changed()).await {
            hint = merged(hint, Some(more));
        }
        hint
    }

    #[tokio::test]
    async fn an_event_names_its_entries_and_what_cannot_be_named_is_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("one/x")).unwrap();
        fs::create_dir(base.join("two")).unwrap();
        symlink("one", base.join("m")).unwrap();
        let mut watcher = armed(base.join("m")).await;
        fs::write(base.join("one/x/a.yaml"), "1").unwrap();
        assert_eq!(hint(&mut watcher).await, Some(Hint::Entries([base.join("one/x/a.yaml")].into())));
        fs::write(base.join("one/x/.a.tmp"), "2").unwrap();
        fs::rename(base.join("one/x/.a.tmp"), base.join("one/x/a.yaml")).unwrap();
        let renamed = [".a.tmp", "a.yaml"].map(|name| base.join("one/x").join(name));
        assert_eq!(hint(&mut watcher).await, Some(Hint::Entries(renamed.into())));
        (0..=ENTRIES_MAX).for_each(|file| fs::write(base.join(format!("one/{file}.yaml")), "").unwrap());
        assert_eq!(hint(&mut watcher).await, Some(Hint::Whole), "too many to name");
        flip("two", &base.join("m"));
        assert_eq!(hint(&mut watcher).await, Some(Hint::Whole), "a flip");
    }

    /// Waits for hints, and loads what they name, until the loader's answer is `expected`: the twin's value and the
    /// revision's name, or the error's category.
    async fn until(watcher: &mut Watcher, loader: &mut Loader, expected: &str) -> bool {
        let look = async {
            loop {
                let hint = watcher.changed().await;
                let found = match loader.reload(&hint) {
                    Ok(snapshot) => {
                        snapshot.state.twins.values().map(|twin| twin.wanted.unpack().tags["v"].to_string()).collect()
                    }
                    Err(error) => error.category().to_owned(),
                };
                if found == expected {
                    return;
                }
            }
        };
        timeout(PATIENCE, look).await.is_ok()
    }

    fn declare(path: &Path, value: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let head = "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: a}\nspec: {tags: {v: ";
        fs::write(path, format!("{head}{value}}}}}\n")).unwrap();
    }

    #[tokio::test]
    async fn each_way_manifests_change_reaches_the_state_without_a_poll() {
        for (root, link) in [("m", None), ("m", Some("m")), ("m/fleet", Some("m")), ("m", Some("m/..data"))] {
            let folder = tempfile::tempdir().unwrap();
            let base = folder.path();
            let below = root.strip_prefix("m").unwrap().trim_start_matches('/');
            let place = |value: usize| match link {
                None => base.join("m/a.yaml"),
                Some("m/..data") => base.join(format!("m/..{value}/a.yaml")),
                Some(_) => base.join(format!("{value}")).join(below).join("a.yaml"),
            };
            let set = |value: usize| {
                declare(&place(value), value);
                match link {
                    None => {}
                    Some("m/..data") => flip(&format!("..{value}"), &base.join("m/..data")),
                    Some(link) => flip(&value.to_string(), &base.join(link)),
                }
            };
            set(1);
            if link == Some("m/..data") {
                symlink("..data/a.yaml", base.join("m/a.yaml")).unwrap();
            }
            let mut watcher = Watcher::new(base.join(root), options());
            let mut loader = Loader::new(base.join(root));
            for value in 1..5 {
                set(value);
                assert!(until(&mut watcher, &mut loader, &value.to_string()).await, "{root} {link:?} {value}");
            }
            fs::rename(base.join("m"), base.join("away")).unwrap();
            assert!(until(&mut watcher, &mut loader, "unreadable").await, "{root} {link:?} gone");
            fs::rename(base.join("away"), base.join("m")).unwrap();
            set(6);
            assert!(until(&mut watcher, &mut loader, "6").await, "{root} {link:?} back");
        }
    }

    #[tokio::test]
    async fn where_events_do_not_work_the_poll_brings_every_change() {
        let folder = tempfile::tempdir().unwrap();
        declare(&folder.path().join("m/a.yaml"), 1);
        let root = folder.path().join("m");
        let mut watcher = Watcher::new(root.clone(), WatchOptions { poll: Duration::from_millis(20), ..options() });
        watcher.armed = Some(Armed { layout: Layout::resolve(&root).unwrap(), _events: None });
        let mut loader = Loader::new(root.clone());
        for value in 2..6 {
            declare(&root.join("a.yaml"), value);
            assert!(until(&mut watcher, &mut loader, &value.to_string()).await, "{value}");
        }
        assert!(watcher.armed.is_some_and(|armed| armed._events.is_none()));
    }
}
