//! `geminid completion`, `geminid man` and the reference in `docs/cli.md`: all from the one description of the command
//! line.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Arg, Args, Command};

use super::output::Output;

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell to complete in
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells that can be completed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// source <(geminid completion bash)
    Bash,
    /// geminid completion zsh > "${fpath[1]}/_geminid"
    Zsh,
    /// geminid completion fish > ~/.config/fish/completions/geminid.fish
    Fish,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Where the pages are written, such as ~/.local/share/man/man1
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints what a shell needs to complete our verbs and flags.
pub(super) fn run(args: &CompletionArgs, mut command: Command) -> anyhow::Result<u8> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "geminid", &mut script);
    Output::stdout().text(&String::from_utf8(script).context("the script is no text")?);
    Ok(0)
}

/// Writes a manual page for every verb.
pub(super) fn write_pages(args: &ManArgs, command: Command) -> anyhow::Result<u8> {
    let name = args.folder.display();
    fs::create_dir_all(&args.folder).with_context(|| format!("cannot make the folder {name}"))?;
    clap_mangen::generate_to(command, &args.folder).with_context(|| format!("cannot write manual pages to {name}"))?;
    Output::stdout().line(&format!("manual pages are in {name}; read them with `man -l {name}/geminid.1`"));
    Ok(0)
}

/// Prints the reference of the whole command line as markdown.
pub(super) fn print_reference(command: Command) -> anyhow::Result<u8> {
    Output::stdout().text(&reference(command));
    Ok(0)
}

fn reference(mut command: Command) -> String {
    command.build();
    let mut text = String::from(
        "# Command line\n\nMade by `geminid cli-reference`; a test keeps it current.\n\nExit codes: 0 as wished, 1 as the \
         verb says (changes, problems, not in sync), 2 for an error, in one line on standard error.\n",
    );
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        text.push_str(&format!("\n## geminid {}\n\n", verb.get_name()));
        if let Some(about) = verb.get_about() {
            text.push_str(&format!("{}.\n", cell(&about.to_string())));
        }
        if let Some(codes) = verb.get_after_help() {
            text.push_str(&format!("\n{}.\n", cell(&codes.to_string())));
        }
        let shown: Vec<&Arg> =
            verb.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").collect();
        if shown.is_empty() {
            continue;
        }
        text.push_str("\n| Argument | |\n|---|---|\n");
        for arg in shown {
            text.push_str(&format!("| `{}` | {} |\n", cell(&spelled(arg)), cell(&described(arg))));
        }
    }
    text
}

/// `-o, --output <OUTPUT>`.
fn spelled(arg: &Arg) -> String {
    let values: Vec<String> = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => names.iter().map(|name| format!("<{name}>")).collect(),
        Some(_) | None => Vec::new(),
    };
    let flags: Vec<String> = [arg.get_short().map(|c| format!("-{c}")), arg.get_long().map(|name| format!("--{name}"))]
        .into_iter()
        .flatten()
        .collect();
    [flags.join(", "), values.join(" ")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn described(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let hidden = arg.is_hide_possible_values_set() || !arg.get_action().takes_values();
    let words: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !hidden && !words.is_empty() {
        text.push_str(&format!(" ({})", words.join(", ")));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        text.push_str(&format!(" [default: {}]", defaults.join(", ")));
    }
    text
}

/// Fit for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_verb_has_a_manual_page_and_completes_in_every_shell() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(&ManArgs { folder: folder.path().join("man1") }, crate::cli::Cli::command()).unwrap();
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::cli::Cli::command(), "geminid", &mut script);
            let script = String::from_utf8(script).unwrap();
            for verb in crate::cli::Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let name = verb.get_name();
                assert!(script.contains(name), "{shell} {name}");
                let page = folder.path().join("man1").join(format!("geminid-{name}.1"));
                assert!(page.exists(), "{name}");
            }
        }
    }
}
