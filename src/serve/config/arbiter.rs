//! Who decides which node serves: what `[dataset.mediator]` and `[dataset.etcd]` mean.

use std::path::Path;

use super::claims::Place;
use super::error::Mistake;
use super::raw::{Dataset, Etcd, Mediator, Text};
use super::value::{self, Outcome};
use super::{ENDPOINTS_MAX, EtcdConfig, MediatorConfig};
use crate::base::FabricUrl;

/// What the keys of registers begin with, unless it is said.
const PREFIX: &str = "/mirrorbus/";

/// One of the two, or none.
pub(super) fn arbiter(
    raw: &Dataset,
    pair_key: &Path,
    peer: &FabricUrl,
) -> Outcome<(Option<MediatorConfig>, Option<EtcdConfig>)> {
    match (&raw.mediator, &raw.etcd) {
        (Some(_), Some(etcd)) => {
            let why = "there is a [dataset.mediator] as well: only one can decide which node serves, so leave one of the two out";
            Err(Mistake::new(etcd.endpoints.span(), "endpoints", why))
        }
        (Some(raw), None) => Ok((Some(mediator(raw, pair_key, peer)?), None)),
        (None, Some(raw)) => Ok((None, Some(etcd(raw)?))),
        (None, None) => Ok((None, None)),
    }
}

/// The mediator: somebody else than the pair, with a key of its own.
fn mediator(raw: &Mediator, pair_key: &Path, peer: &FabricUrl) -> Outcome<MediatorConfig> {
    let address = value::mediator_url(&raw.address, "address")?;
    if Place::of_url(&address) == Place::of_url(peer) {
        let why = format!(
            "{address} is the peer's: a mediator has an address of its own, and is best on a third machine"
        );
        return Err(Mistake::new(raw.address.span(), "address", why));
    }
    let key = value::path(&raw.key, "key")?;
    if key == pair_key {
        let why = format!("{} is the pair's key: the mediator has one of its own", key.display());
        return Err(Mistake::new(raw.key.span(), "key", why));
    }
    let preferred = raw.preferred.as_ref().map(|name| value::name(name, "preferred"));
    Ok(MediatorConfig { address, key, preferred: preferred.transpose()? })
}

fn etcd(raw: &Etcd) -> Outcome<EtcdConfig> {
    let endpoints = endpoints(raw)?;
    let optional = |text: &Option<Text>, key| text.as_ref().map(|text| value::path(text, key)).transpose();
    let refuse = |text: &Text, key: &str, why: &str| Err(Mistake::new(text.span(), key, why));
    let ca = optional(&raw.ca, "ca")?;
    let certificate = optional(&raw.certificate, "certificate")?;
    let key = optional(&raw.key, "key")?;
    let is_https = endpoints.iter().all(|endpoint| endpoint.starts_with("https://"));
    match (&raw.ca, is_https) {
        (Some(ca), false) => return refuse(ca, "ca", "it is for endpoints of https, and these are http"),
        (None, true) => {
            let why = "https needs `ca`, the file with the certificate of whoever signed etcd's";
            return Err(Mistake::new(raw.endpoints.span(), "endpoints", why));
        }
        (Some(_), true) | (None, false) => {}
    }
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let (text, key) =
                raw.certificate.as_ref().map_or((&raw.key, "key"), |_| (&raw.certificate, "certificate"));
            let span = text.as_ref().map_or_else(|| raw.endpoints.span(), Text::span);
            return Err(Mistake::new(
                span,
                key,
                "`certificate` and `key` go together: write both or neither",
            ));
        }
    };
    if let (Some(_), false, Some(text)) = (&certificate, is_https, &raw.certificate) {
        return refuse(text, "certificate", "it is for endpoints of https, and these are http");
    }
    let password = optional(&raw.password, "password")?;
    let login = match (&raw.user, password) {
        (Some(user), Some(password)) => {
            let name = user.get_ref();
            if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
                return refuse(user, "user", "a user of etcd has 1 to 255 bytes without control characters");
            }
            Some((name.clone(), password))
        }
        (None, None) => None,
        (Some(user), None) => {
            return refuse(
                user,
                "user",
                "`user` needs `password`, the path of a file of mode 0600 that has it",
            );
        }
        (None, Some(_)) => {
            let span = raw.password.as_ref().map_or_else(|| raw.endpoints.span(), Text::span);
            return Err(Mistake::new(span, "password", "`password` needs `user`"));
        }
    };
    let prefix = match &raw.prefix {
        None => PREFIX.to_owned(),
        Some(text) => prefix(text)?,
    };
    let preferred = raw.preferred.as_ref().map(|name| value::name(name, "preferred")).transpose()?;
    Ok(EtcdConfig { endpoints, prefix, ca, certificate, login, preferred })
}

fn endpoints(raw: &Etcd) -> Outcome<Vec<String>> {
    let texts = raw.endpoints.get_ref();
    if !(1..=ENDPOINTS_MAX).contains(&texts.len()) {
        let why = format!("{} endpoints: write 1 to {ENDPOINTS_MAX}", texts.len());
        return Err(Mistake::new(raw.endpoints.span(), "endpoints", why));
    }
    let mut endpoints: Vec<String> = Vec::with_capacity(texts.len());
    for text in texts {
        let url = value::http_url(text, "endpoints")?;
        if let Some(first) = endpoints.first()
            && first.starts_with("https://") != url.starts_with("https://")
        {
            let why = "http and https: an etcd has one of the two at all its members";
            return Err(Mistake::new(text.span(), "endpoints", why));
        }
        if endpoints.contains(&url) {
            return Err(Mistake::new(text.span(), "endpoints", format!("{url} stands there twice")));
        }
        endpoints.push(url);
    }
    Ok(endpoints)
}

fn prefix(text: &Text) -> Outcome<String> {
    let prefix = text.get_ref();
    if (1..=255).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(prefix.clone());
    }
    let why = format!("{prefix:?} is no prefix of keys: 1 to 255 signs of ASCII, without blanks");
    Err(Mistake::new(text.span(), "prefix", why))
}
