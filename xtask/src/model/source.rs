//! Addresses that may come with an account (`https://user:password@host/path`, RFC 3986, 3.2.1). The account is kept apart from
//! the address, so that what is printed, passed on or stored never holds it. Refuses nothing: a text without an account is an
//! address as it is.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

/// The address of a server, without an account and without a slash at its end, and the account that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub url: String,
    pub account: Option<Account>,
}

/// A name and a password. Its `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub password: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(…)")
    }
}

impl Account {
    /// Base64 of `name:password`, as HTTP's Basic scheme and npm's `_auth` want it.
    pub fn basic(&self) -> String {
        BASE64.encode(format!("{}:{}", self.name, self.password))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        let text = text.trim().trim_end_matches('/');
        let Some((start, end)) = user_info(text) else { return Self { url: text.to_owned(), account: None } };
        let (name, password) = text[start..end - 1].split_once(':').unwrap_or((&text[start..end - 1], ""));
        let account = Account { name: decoded(name), password: decoded(password) };
        Self { url: format!("{}{}", &text[..start], &text[end..]), account: Some(account) }
    }
}

impl Source {
    /// `host:port`.
    pub fn authority(&self) -> &str {
        self.url.split('/').nth(2).unwrap_or(&self.url)
    }

    /// The name of the host.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }

    /// The value of `Authorization` for a request to an address of the same server.
    pub fn authorization(&self, url: &str) -> Option<String> {
        let server = |url: &str| url.split('/').take(3).collect::<Vec<_>>().join("/");
        let account = self.account.as_ref().filter(|_| server(url) == server(&self.url))?;
        Some(format!("Basic {}", account.basic()))
    }

    /// A line of netrc(5), which pip, uv and curl read.
    pub fn netrc(&self) -> Option<String> {
        let account = self.account.as_ref()?;
        Some(format!("machine {} login {} password {}\n", self.host(), account.name, account.password))
    }

    /// The setting of npm that holds the account: its name, and its value.
    pub fn npm_setting(&self) -> Option<(String, String)> {
        let (_, rest) = self.url.split_once(':')?;
        Some((format!("{rest}/:_auth"), self.account.as_ref()?.basic()))
    }
}

/// Where the user information of the first address in a text begins, and where the host after it begins.
fn user_info(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>');
        let authority = text[start..].split(ends).next().unwrap_or_default();
        if let Some(end) = authority.rfind('@') {
            return Some((start, start + end + 1));
        }
        from = start;
    }
    None
}

/// A text in which no address holds an account.
pub fn without_accounts(text: &str) -> Cow<'_, str> {
    if user_info(text).is_none() {
        return Cow::Borrowed(text);
    }
    let (mut rest, mut clean) = (text, String::new());
    while let Some((start, end)) = user_info(rest) {
        clean.push_str(&rest[..start]);
        rest = &rest[end..];
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Percent-encoding undone (RFC 3986, 2.1).
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match code.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_kept_apart_from_its_address() {
        let source = Source::from("https://me:p%40ss%3a@index.example:8443/simple/");
        let account = source.account.clone().expect("an account");
        assert_eq!(source.url, "https://index.example:8443/simple");
        assert_eq!((account.name.as_str(), account.password.as_str()), ("me", "p@ss:"));
        assert_eq!((source.authority(), source.host()), ("index.example:8443", "index.example"));
        assert_eq!(source.netrc().as_deref(), Some("machine index.example login me password p@ss:\n"));
        let (name, value) = source.npm_setting().expect("a setting");
        assert_eq!((name.as_str(), value), ("//index.example:8443/simple/:_auth", account.basic()));
        assert!(source.authorization("https://index.example:8443/files/x").is_some());
        assert!(source.authorization("https://index.example/files/x").is_none(), "another server");
        assert!(!format!("{source:?} {source}").contains("p@ss"));
        let token = Source::from("http://token@[::1]:8080/");
        assert_eq!((token.url.as_str(), token.host()), ("http://[::1]:8080", "[::1]"));
        assert_eq!(token.account.map(|account| account.name).as_deref(), Some("token"));
        assert_eq!(Source::from("https://x.example/a@b").account, None);
    }

    #[test]
    fn no_text_shows_an_account() {
        let text = "a http://u:p@h/x, \"https://t@[::1]:1/y@z\" git@host:path http://h/ u:p@h";
        let clean = "a http://h/x, \"https://[::1]:1/y@z\" git@host:path http://h/ u:p@h";
        assert_eq!(without_accounts(text), clean);
        assert_eq!(without_accounts("https://u:p/w@h/"), "https://u:p/w@h/", "a slash ends the authority");
        assert_eq!(without_accounts("http://a:b@c:d@h"), "http://h");
    }
}
