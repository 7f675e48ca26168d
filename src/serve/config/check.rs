//! From what is written to what it means, and whether it fits together.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::arbiter::arbiter;
use super::claims::{Claims, Place};
use super::error::{ConfigError, Mistake, place};
use super::raw::{Dataset, File, Node, Text, Tls, Volume};
use super::value::{self, Outcome};
use super::{
    DATASETS_MAX, DatasetConfig, Durability, FILE_BYTES_MAX, NBD_ADDRESSES_MAX, NbdAddress, NodeConfig,
    REGION_BYTES_MAX, TlsConfig, VOLUMES_MAX, VolumeConfig, parse_dataset_id,
};
use crate::base::{BlockSize, DatasetId, FabricUrl, format_bytes};
use crate::memory::LockPolicy;
use crate::segment::{Ring, SegmentLayout};
use crate::volume::BlockMap;

impl NodeConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong; the first mistake, with its place.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let failed = |call| move |error| ConfigError::Read { file: file.into(), call, error };
        // Looked at first: opening a pipe would wait for whoever writes into it.
        if !std::fs::metadata(file).map_err(failed("stat"))?.is_file() {
            return Err(ConfigError::NotRegular { file: file.into() });
        }
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(failed("open"))?;
        opened.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text, file),
            Err(error) if error.as_bytes().len() > FILE_BYTES_MAX => {
                Err(ConfigError::TooLong { file: file.into() })
            }
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
                let why = "there is a byte that is no UTF-8: save the file as UTF-8";
                Err(Mistake::new(valid..valid, "TOML", why).in_file(file, &text))
            }
        }
    }

    /// The configuration that `text` is; `file` is named in errors, and not looked at.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong { file: file.into() });
        }
        let raw: Result<File, _> = toml::from_str(text);
        raw.map_err(|error| Mistake::of_toml(&error, text))
            .and_then(|raw| Checker { text, claims: Claims::default() }.node(&raw))
            .map_err(|mistake| mistake.in_file(file, text))
    }
}

/// What is known while a file is checked.
struct Checker<'a> {
    text: &'a str,
    claims: Claims,
}

impl Checker<'_> {
    fn node(mut self, raw: &File) -> Outcome<NodeConfig> {
        let Node { name, admin, metrics } = raw.node.get_ref();
        let node_name = value::name(name, "name")?;
        let admin_path = value::socket_path(admin, "admin")?;
        self.claim(Place::Socket(admin_path.clone()), "admin", "the node", admin.span())?;
        let metrics_address = match metrics {
            Some(metrics) => {
                let address = value::socket_address(metrics, "metrics")?;
                self.claim(Place::of_socket_address(address), "metrics", "the node", metrics.span())?;
                Some(address)
            }
            None => None,
        };
        let count = raw.dataset.len();
        if !(1..=DATASETS_MAX).contains(&count) {
            let why = format!("{count} datasets: write 1 to {DATASETS_MAX} tables [[dataset]]");
            return Err(Mistake::new(raw.node.span(), "dataset", why));
        }
        let mut datasets: Vec<DatasetConfig> = Vec::with_capacity(count);
        for (at, dataset) in raw.dataset.iter().enumerate() {
            let checked = self.dataset(dataset)?;
            self.distinct(&checked, dataset, &datasets, &raw.dataset[..at])?;
            datasets.push(checked);
        }
        self.peers(&datasets, &raw.dataset)?;
        Ok(NodeConfig { name: node_name, admin: admin_path, metrics: metrics_address, datasets })
    }

    fn claim(&mut self, wanted: Place, key: &str, owner: &str, span: Range<usize>) -> Outcome<()> {
        self.claims.add(wanted, (key, owner), span, self.text)
    }

    fn line(&self, text: &Text) -> usize {
        place(self.text, text.span().start).0
    }

    fn dataset(&mut self, raw: &Dataset) -> Outcome<DatasetConfig> {
        let name = value::name(&raw.name, "name")?;
        let id = dataset_id(&raw.id)?;
        let directory = value::path(&raw.directory, "directory")?;
        let key = value::path(&raw.key, "key")?;
        let listen = value::fabric_url(&raw.listen, "listen")?;
        for place in Place::of_url(&listen) {
            self.claim(place, "listen", &name, raw.listen.span())?;
        }
        let peer = value::fabric_url(&raw.peer, "peer")?;
        same_medium(&listen, &peer, raw)?;
        let (region_bytes, segment_bytes) = ring(raw)?;
        let durability = raw.durability.as_ref().map(|text| value::durability(text, "durability"));
        let reads = raw.reads.as_ref().map(|text| value::reads(text, "reads"));
        let lock = raw.lock.as_ref().map(|lock| value::lock(lock, "lock"));
        let tls = raw.tls.as_ref().map(tls).transpose()?;
        let (mediator, etcd) = arbiter(raw, &key, &peer)?;
        let nbd = self.nbd(raw, &name, tls.as_ref())?;
        let hold = super::hold::hold(raw)?;
        let silence = super::silence::silence(raw)?;
        let hooks = super::hooks::hooks(raw)?;
        let volumes = self.volumes(&raw.volume)?;
        Ok(DatasetConfig {
            durability: durability.transpose()?.unwrap_or(Durability::Disk),
            reads: reads.transpose()?.unwrap_or_default(),
            lock: lock.transpose()?.unwrap_or(LockPolicy::Required),
            name,
            id,
            directory,
            key,
            listen,
            peer,
            region_bytes,
            segment_bytes,
            nbd,
            tls,
            hold,
            silence,
            hooks,
            mediator,
            etcd,
            volumes,
        })
    }

    /// Where clients come in: not twice, and from elsewhere only with encryption.
    fn nbd(&mut self, raw: &Dataset, name: &str, tls: Option<&TlsConfig>) -> Outcome<Vec<NbdAddress>> {
        let mut addresses = Vec::with_capacity(raw.nbd.len().min(NBD_ADDRESSES_MAX));
        for (at, text) in raw.nbd.iter().enumerate() {
            if at == NBD_ADDRESSES_MAX {
                let why = format!("{} addresses: at most {NBD_ADDRESSES_MAX}", raw.nbd.len());
                return Err(Mistake::new(text.span(), "nbd", why));
            }
            let address = value::nbd_address(text, "nbd")?;
            if let NbdAddress::Tcp(socket) = &address
                && !socket.ip().is_loopback()
                && !tls.is_some_and(|tls| tls.required)
            {
                let why = format!(
                    "{address} can be reached from elsewhere: add [dataset.tls] with required = true, or listen at 127.0.0.1"
                );
                return Err(Mistake::new(text.span(), "nbd", why));
            }
            self.claim(Place::of_nbd(&address), "nbd", name, text.span())?;
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn volumes(&self, raw: &[Volume]) -> Outcome<Vec<VolumeConfig>> {
        let mut volumes: Vec<VolumeConfig> = Vec::with_capacity(raw.len().min(VOLUMES_MAX));
        for (at, volume) in raw.iter().enumerate() {
            let name = value::volume_name(&volume.name, "name")?;
            if at == VOLUMES_MAX {
                let why = format!("{} volumes: at most {VOLUMES_MAX}", raw.len());
                return Err(Mistake::new(volume.name.span(), "name", why));
            }
            if let Some(other) = volumes.iter().position(|other| other.name == name) {
                let line = self.line(&raw[other].name);
                let why = format!("a second volume {name:?}; the first is in line {line}");
                return Err(Mistake::new(volume.name.span(), "name", why));
            }
            let block = volume.block.as_ref().map(|block| value::block_size(block, "block"));
            let block_size = block.transpose()?.unwrap_or(BlockSize::Large);
            let bytes = value::size(&volume.size, "size")?;
            let blocks = bytes >> block_size.shift();
            if blocks == 0 || !bytes.is_multiple_of(block_size.bytes()) || blocks > BlockMap::BLOCKS_MAX {
                let why = format!(
                    "a volume of {bytes} bytes: at least one block of {} bytes, whole ones, and at most 2^48",
                    block_size.bytes()
                );
                return Err(Mistake::new(volume.size.span(), "size", why));
            }
            volumes.push(VolumeConfig { name, bytes, block_size });
        }
        Ok(volumes)
    }

    /// Names, ids and directories are not those of the datasets before.
    fn distinct(
        &self,
        checked: &DatasetConfig,
        raw: &Dataset,
        before: &[DatasetConfig],
        raw_before: &[Dataset],
    ) -> Outcome<()> {
        for (other, raw_other) in before.iter().zip(raw_before) {
            let refuse = |text: &Text, key: &str, what: String, first: &Text| {
                let why = format!("{what}; the other is {:?} in line {}", other.name, self.line(first));
                Err(Mistake::new(text.span(), key, why))
            };
            if other.name == checked.name {
                return refuse(
                    &raw.name,
                    "name",
                    format!("a second dataset {:?}", other.name),
                    &raw_other.name,
                );
            }
            if other.id == checked.id {
                return refuse(
                    &raw.id,
                    "id",
                    format!("a second dataset with the id {}", other.id),
                    &raw_other.id,
                );
            }
            let (one, another) = (&checked.directory, &other.directory);
            if one.starts_with(another) || another.starts_with(one) {
                let what = format!("{} and {} are one within the other", one.display(), another.display());
                return refuse(&raw.directory, "directory", what, &raw_other.directory);
            }
        }
        Ok(())
    }

    /// No peer and no mediator is this node itself.
    fn peers(&self, datasets: &[DatasetConfig], raw: &[Dataset]) -> Outcome<()> {
        for (dataset, raw_dataset) in datasets.iter().zip(raw) {
            let mut targets = vec![(&dataset.peer, &raw_dataset.peer, "peer", "the other node does")];
            if let (Some(mediator), Some(raw_mediator)) = (&dataset.mediator, &raw_dataset.mediator) {
                targets.push((&mediator.address, &raw_mediator.address, "address", "the mediator does"));
            }
            for (target, text, key, who) in targets {
                let places = Place::of_url(target);
                for (other, raw_other) in datasets.iter().zip(raw) {
                    let own = Place::of_url(&other.listen);
                    if own.iter().any(|own| places.iter().any(|place| own.is_reached_by(place))) {
                        let why = format!(
                            "{target} is where this node itself listens, for {:?} in line {}: write where {who}",
                            other.name,
                            self.line(&raw_other.listen)
                        );
                        return Err(Mistake::new(text.span(), key, why));
                    }
                }
            }
        }
        Ok(())
    }
}

fn dataset_id(text: &Text) -> Outcome<DatasetId> {
    parse_dataset_id(text.get_ref()).map_err(|why| Mistake::new(text.span(), "id", why))
}

fn same_medium(listen: &FabricUrl, peer: &FabricUrl, raw: &Dataset) -> Outcome<()> {
    if listen.medium() == peer.medium() {
        return Ok(());
    }
    let why =
        format!("{peer} is another medium than that of listen, {listen}: the pair has one for both ways");
    Err(Mistake::new(raw.peer.span(), "peer", why))
}

/// Bytes of the ring and of its segments.
fn ring(raw: &Dataset) -> Outcome<(u64, u64)> {
    let device_block = SegmentLayout::DEFAULT.device_block_bytes();
    let segment = match &raw.segment {
        Some(segment) => {
            let bytes = value::size(segment, "segment")?;
            let layout = SegmentLayout::new(bytes, device_block);
            layout.map_err(|error| Mistake::new(segment.span(), "segment", error.to_string()))?;
            bytes
        }
        None => SegmentLayout::DEFAULT.segment_bytes(),
    };
    let bytes = value::size(&raw.region, "region")?;
    let least = Ring::PLACES_MIN * segment;
    let most = REGION_BYTES_MAX.min(usize::MAX as u64 / 2);
    if !bytes.is_multiple_of(segment) || !(least..=most).contains(&bytes) {
        let fitting = bytes.clamp(least, most).next_multiple_of(segment);
        let why = format!(
            "a ring of {bytes} bytes: whole segments of {segment} bytes ({}), {} at least, and at most {}; {fitting} bytes ({}) would be",
            format_bytes(segment),
            Ring::PLACES_MIN,
            format_bytes(most),
            format_bytes(fitting)
        );
        return Err(Mistake::new(raw.region.span(), "region", why));
    }
    Ok((bytes, segment))
}

fn tls(raw: &Tls) -> Outcome<TlsConfig> {
    let optional = |text: &Option<Text>, key| -> Outcome<Option<PathBuf>> {
        text.as_ref().map(|text| value::path(text, key)).transpose()
    };
    Ok(TlsConfig {
        certificate: value::path(&raw.certificate, "certificate")?,
        key: value::path(&raw.key, "key")?,
        client_ca: optional(&raw.client_ca, "client_ca")?,
        required: raw.required.unwrap_or(true),
    })
}
