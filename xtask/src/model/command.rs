//! A command line as data. The echo, a dry run and errors print the same text. Refuses
//! secrets: they travel by the environment or a file, which are not echoed.

use std::fmt;

use super::source::without_accounts;

/// A program with its arguments, environment and standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Variables that are not printed.
    pub secrets: Secrets,
    /// Text for standard input; shown as a here-document, so secrets do not belong here.
    pub stdin: Option<String>,
}

impl Cmd {
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(program: &str, args: I) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.to_owned(), args, env: Vec::new(), secrets: Secrets::default(), stdin: None }
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

    /// A variable that is not printed: an account, and what it is for is clear from the rest.
    pub fn secret(mut self, name: &str, value: impl Into<String>) -> Self {
        self.secrets.0.push((name.to_owned(), value.into()));
        self
    }

    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }
}

/// Quotes a word for a POSIX shell where it needs it (Shell Command Language, 2.2).
fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@,+%^".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Variables whose values nothing prints.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<(String, String)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        for (name, value) in &self.env {
            line += &format!("{name}={} ", quote(value));
        }
        line += &quote(&self.program);
        for arg in &self.args {
            line += &format!(" {}", quote(arg));
        }
        if let Some(text) = &self.stdin {
            line += &format!(" <<'EOF'\n{}\nEOF", text.trim_end());
        }
        f.write_str(&without_accounts(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_a_line_that_a_shell_takes_back() {
        let cmd = Cmd::new("docker", ["run", "it's", "", "a b"]).env("X", "1 2").stdin("{}\n");
        assert_eq!(cmd.to_string(), "X='1 2' docker run 'it'\\''s' '' 'a b' <<'EOF'\n{}\nEOF");
        let secret = Cmd::new("x", ["http://u:canary@h/"]).secret("TOKEN", "canary");
        assert_eq!(secret.to_string(), "x http://h/");
        assert!(!format!("{:?}", secret.secrets).contains("canary"));
    }
}
