//! Where a redirect may lead, so that a program with more rights than whoever chose the model is not
//! sent to addresses of somebody's choice.
//!
//! A name is resolved once: what was checked is what is connected to.

use std::{
    error::Error as StdError,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Where a redirect may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Redirects {
    /// Anywhere: for a program that can reach no more than whoever chose the address.
    #[default]
    Anywhere,
    /// To the endpoint itself and to these hosts; to addresses inside the cluster or the site only if
    /// the endpoint is inside too.
    Only(Hosts),
}

/// Hosts that an administrator allows: `hub.example`, `*.hub.example`, `hub.example:8443`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Host>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// With a leading dot where all hosts below are meant.
    name: String,
    port: Option<u16>,
}

impl Hosts {
    /// Where the public hub keeps files.
    pub fn of_the_public_hub() -> Self {
        let host = |name: &str| Host { name: name.to_owned(), port: None };
        Self(["huggingface.co", ".huggingface.co", ".hf.co"].map(host).to_vec())
    }

    fn allow(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let usual = if url.scheme() == "https" { 443 } else { 80 };
        let port = url.port().unwrap_or(usual);
        self.0.iter().any(|allowed| {
            let named = match allowed.name.strip_prefix('.') {
                Some(_) => host.len() > allowed.name.len() && host.ends_with(&allowed.name),
                None => host == allowed.name,
            };
            named && port == allowed.port.unwrap_or(usual)
        })
    }
}

impl FromStr for Hosts {
    type Err = String;

    /// Reads a list with commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let hosts = text.split(',').map(str::trim).filter(|host| !host.is_empty());
        hosts.map(host).collect::<Result<_, _>>().map(Self)
    }
}

fn host(text: &str) -> Result<Host, String> {
    let wrong = || format!("{text:?} is no host such as hub.example, *.hub.example or hub:8443");
    let below = text.strip_prefix('*');
    // The URL's own rules: letters in lower case, addresses in their usual form.
    let named = below.map_or(text, |rest| rest.strip_prefix('.').unwrap_or(""));
    let url = Url::parse(&format!("http://{named}/")).map_err(|_| wrong())?;
    let plain = url.path() == "/" && url.username().is_empty() && !named.contains(['/', '@', '*']);
    let name = url.host_str().filter(|_| plain && url.query().is_none()).ok_or_else(wrong)?;
    let port = match named.rsplit_once(':') {
        Some((_, port)) if !named.ends_with(']') => Some(port.parse().map_err(|_| wrong())?),
        _ => None,
    };
    let dot = if below.is_some() { "." } else { "" };
    Ok(Host { name: format!("{dot}{name}"), port })
}

/// A host that resolves to nothing but addresses inside the cluster or the site.
#[derive(Debug)]
pub(crate) struct Inside {
    name: String,
    address: IpAddr,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, an address inside", self.name, self.address)
    }
}

impl StdError for Inside {}

impl Inside {
    /// Why nothing is asked there, to be read after the host.
    pub(crate) fn why(&self) -> String {
        format!("resolves to {}, an address inside the cluster or the site", self.address)
    }
}

/// Looks over where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    home: Url,
    hosts: Hosts,
    /// Whether the endpoint itself is inside.
    inside: Arc<AtomicBool>,
}

impl Guard {
    pub(crate) fn new(home: &Url, redirects: &Redirects) -> Option<Self> {
        let Redirects::Only(hosts) = redirects else { return None };
        let inside = literal(home).is_some_and(|address| !is_public(address));
        Some(Self {
            home: home.clone(),
            hosts: hosts.clone(),
            inside: Arc::new(AtomicBool::new(inside)),
        })
    }

    /// Why a redirect is not followed, to be read after where it leads.
    pub(crate) fn refuses(&self, url: &Url) -> Option<String> {
        let same_host = url.host_str() == self.home.host_str();
        // Its own port, or the usual one: a hub may send from http to https.
        let same_port = url.port() == self.home.port() || url.port().is_none();
        if !(same_host && same_port || self.hosts.allow(url)) {
            return Some("is not in the list of hosts that it may redirect to".to_owned());
        }
        let address = literal(url)?;
        let hidden = !same_host && !is_public(address) && !self.inside.load(Ordering::Relaxed);
        hidden.then(|| "is an address inside the cluster or the site".to_owned())
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            let inside = found.iter().find(|found| !is_public(found.ip())).copied();
            if guard.home.host_str() == Some(name) {
                guard.inside.store(inside.is_some(), Ordering::Relaxed);
            } else if !guard.inside.load(Ordering::Relaxed)
                && let Some(inside) = inside
            {
                // Not even where there are others: a name of the public has none inside.
                let inside = Inside { name: name.to_owned(), address: inside.ip() };
                return Err(Box::new(inside) as Box<dyn StdError + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address is one of the open internet, by IANA's registries of special addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            // Global unicast is all there is; documentation and Teredo are in it.
            let [a, b, ..] = address.segments();
            let global = a & 0xe000 == 0x2000
                && !(a == 0x2001 && (b < 0x0200 || b == 0x0db8))
                && a != 0x3fff;
            embedded(address).map_or(global, is_public_v4)
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18))
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64 and 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let pair = |at: usize| {
        let ([a, b], [c, d]) = (parts[at].to_be_bytes(), parts[at + 1].to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match parts {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, ..] => {
            Some(pair(6))
        }
        [0x2002, ..] => Some(pair(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(hosts: &str, url: &str) -> bool {
        hosts.parse::<Hosts>().unwrap().allow(&Url::parse(url).unwrap())
    }

    #[test]
    fn hosts_are_allowed_by_name_and_port() {
        for (hosts, url) in [
            ("a.example", "https://A.example/x"),
            ("b.example, *.a.example", "https://x.y.a.example/"),
            ("a.example:8443", "https://a.example:8443/"),
            ("10.0.0.1", "http://10.0.0.1/"),
            ("[fd00::1]", "http://[fd00::1]/"),
            ("[fd00::1]:81", "http://[fd00::1]:81/"),
        ] {
            assert!(allows(hosts, url), "{hosts} {url}");
        }
        for (hosts, url) in [
            ("", "https://a.example/"),
            ("a.example", "https://xa.example/"),
            ("a.example", "https://x.a.example/"),
            ("*.a.example", "https://a.example/"),
            ("*.a.example", "https://xa.example/"),
            ("a.example", "https://a.example:6443/"),
            ("a.example", "https://a.example./"),
            ("a.example:8443", "https://a.example/"),
        ] {
            assert!(!allows(hosts, url), "{hosts} {url}");
        }
        for wrong in ["*", "*a.example", "a.*", "http://a", "a/b", "u@a", "a:b", "a?b", "*.*.a"] {
            assert!(wrong.parse::<Hosts>().is_err(), "{wrong}");
        }
        let hub = Hosts::of_the_public_hub();
        assert!(hub.allow(&Url::parse("https://cas-bridge.xethub.hf.co/x").unwrap()));
        assert!(!hub.allow(&Url::parse("https://huggingface.co.evil.example/x").unwrap()));
    }

    #[test]
    fn addresses_inside_are_known_in_every_spelling() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8", "2001:4860::8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn spellings_of_addresses_are_made_one_by_the_url() {
        let home = Url::parse("https://huggingface.co").unwrap();
        let all = "127.0.0.1,[::1],10.0.0.1".parse().unwrap();
        let guard = Guard::new(&home, &Redirects::Only(all)).unwrap();
        for url in ["http://0x7f.1/", "http://2130706433/", "http://[::1]/", "http://10.1/"] {
            let why = guard.refuses(&Url::parse(url).unwrap()).unwrap();
            assert_eq!(why, "is an address inside the cluster or the site", "{url}");
        }
        assert_eq!(guard.refuses(&home.join("/x").unwrap()), None);
        assert!(guard.refuses(&Url::parse("https://huggingface.co:6443/").unwrap()).is_some());
    }
}
