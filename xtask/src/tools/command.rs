//! A command line as data. The echo, a dry run and an error show the same text, which a shell accepts. It contains no
//! secrets: they travel by the environment or a file.

use std::ffi::OsStr;
use std::fmt;

use xshell::Shell;

use crate::model::progress::{Form, Work};
use crate::model::source::without_accounts;

/// A program with its arguments, environment and standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Variables that are not printed.
    pub secrets: Secrets,
    /// Text for standard input; printed as a here-document, so secrets do not belong here.
    pub stdin: Option<String>,
    /// What it is to the person who waits for it.
    pub work: Work,
}

/// A [`Cmd`] in xshell's notation: `cmd!("docker run {options...} {image}")`.
macro_rules! cmd {
    ($line:literal) => {
        $crate::tools::command::Cmd::written(|shell| xshell::cmd!(shell, $line))
    };
}
pub(crate) use cmd;

impl Cmd {
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(program: &str, args: I) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self {
            program: program.to_owned(),
            args,
            env: Vec::new(),
            secrets: Secrets::default(),
            stdin: None,
            work: Work::default(),
        }
    }

    /// The program and the arguments that [`cmd!`] lists. The shell is only its notation: it runs nothing.
    pub(crate) fn written(line: impl for<'a> FnOnce(&'a Shell) -> xshell::Cmd<'a>) -> Self {
        let shell = Shell::new().expect("settings::root has read the current directory");
        let line = std::process::Command::from(line(&shell));
        let text = |word: &OsStr| word.to_string_lossy().into_owned();
        Self::new(&text(line.get_program()), line.get_args().map(text))
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// A variable that is not printed, such as an account.
    pub fn secret(mut self, name: &str, value: impl Into<String>) -> Self {
        self.secrets.0.push((name.to_owned(), value.into()));
        self
    }

    /// Names it for the terminal, and says how its output is to be read. `last` is how many seconds it took last time.
    pub fn shown(mut self, name: impl Into<String>, form: Form, last: Option<u64>) -> Self {
        self.work = Work { name: name.into(), form, last };
        self
    }

    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }
}

/// Variables whose values are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<(String, String)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self.env.iter().map(|(name, value)| format!("{name}={}", quote(value)));
        let words = [&self.program].into_iter().chain(&self.args).map(|word| quote(word));
        let mut line = variables.chain(words).collect::<Vec<_>>().join(" ");
        if let Some(text) = &self.stdin {
            let mut end = "EOF".to_owned();
            while text.lines().any(|line| line == end) {
                end.push('F');
            }
            line += &format!(" <<'{end}'\n{}\n{end}", text.strip_suffix('\n').unwrap_or(text));
        }
        f.write_str(&without_accounts(&line))
    }
}

/// Quotes a word for a shell where it needs it. shlex quotes every `=`, which options have and which needs no quotes
/// after the first letter.
fn quote(word: &str) -> String {
    let quoter = shlex::Quoter::new().allow_nul(true);
    let quoted = |word: &str| quoter.quote(word).map_or_else(|_| word.to_owned(), Into::into);
    let plain = word.replace('=', "");
    if !word.starts_with('=') && quoted(&plain) == plain { word.to_owned() } else { quoted(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_splits_words_as_a_shell_does() {
        let (image, options) = ("a b", ["--rm", "-v=x y"]);
        let cmd = cmd!("docker run {options...} --name=x{image} 'two words' {image}");
        let words = ["run", "--rm", "-v=x y", "--name=xa b", "two words", "a b"];
        assert_eq!(cmd, Cmd::new("docker", words));
    }

    /// A shell gets the printed line and prints every word of the command in a line of its own.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "the judge is a real shell")]
    fn a_shell_accepts_the_printed_line() {
        let words = [
            "it's", "", "a b", "$HOME", "`id`", "*", "a\"b", "~", "^x", "#", "a\\b", "x=1;y", "é", "a!b",
            "--a=b", "a=b", "--a=b c", "=x",
        ];
        let script = "printf '%s|' \"$X\" \"$@\"; cat";
        let cmd = Cmd::new("sh", ["-c", script, "sh"]).args(words).env("X", "1 '2'").stdin("{}\nEOF\n$x\n");
        let output =
            std::process::Command::new("sh").args(["-c", &cmd.to_string()]).output().expect("a shell");
        let printed = format!("1 '2'|{}|{{}}\nEOF\n$x\n", words.join("|"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{cmd}");
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Cmd::new("x", ["http://u:canary@h/"]).secret("TOKEN", "canary");
        assert_eq!(secret.to_string(), "x http://h/");
        assert!(!format!("{:?}", secret.secrets).contains("canary"));
    }
}
