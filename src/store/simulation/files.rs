//! The segments' files on a simulated disk: what [`SegmentFiles`](crate::store::SegmentFiles) does, with the power cut anywhere.

use std::cell::RefCell;
use std::io;

use super::world::trace;
use super::{DATASET, Defect};
use crate::base::{DatasetId, Lsn};
use crate::segment::{HEAD_BYTES, HeadError, SegmentHead, SegmentLayout, SegmentSource};
use crate::sim::{Disk, DiskError};
use crate::store::SegmentFileError;
use crate::store::durable_mark::{Marked, PLACE_BYTES, Places};
use crate::store::log_files::LogFiles;

/// Bytes that the disk writes whole.
const SECTOR: u64 = 512;
/// The file of a segment that is written anew.
const RENEWAL: u64 = 1;

pub(super) struct Files {
    pub(super) disk: RefCell<Disk>,
    layout: SegmentLayout,
    defect: Defect,
    /// Whose they are.
    name: &'static str,
}

/// The file of the mark.
const MARK: u64 = 2;

/// One file, as a scan reads it.
pub(super) struct Source<'a> {
    files: &'a Files,
    base: Lsn,
}

impl SegmentSource for Source<'_> {
    type Error = io::Error;

    fn read(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.files.read(self.base, offset, target)
    }
}

fn failed(error: DiskError) -> SegmentFileError {
    let error = io::Error::other(format!("{error:?}"));
    SegmentFileError::System { path: "simulated".into(), call: "write", error }
}

impl Files {
    pub(super) const fn new(layout: SegmentLayout, seed: u64, defect: Defect, name: &'static str) -> Self {
        Self { disk: RefCell::new(Disk::new(SECTOR, seed)), layout, defect, name }
    }

    /// As after a start: what was written anew is gone.
    pub(super) fn open(&self) -> Result<(), SegmentFileError> {
        trace(|| format!("{} opens {:x?}", self.name, self.disk.borrow().files()));
        self.abandon_renewals()
    }

    pub(super) fn abandon_renewals(&self) -> Result<(), SegmentFileError> {
        let files = self.disk.borrow().files();
        for file in files.into_iter().filter(|file| file % self.layout.segment_bytes() == RENEWAL) {
            self.disk.borrow_mut().remove(file).map_err(failed)?;
        }
        Ok(())
    }

    /// What the mark says.
    pub(super) fn marked(&self) -> Places {
        let mut bytes = [0; 2 * PLACE_BYTES];
        self.disk.borrow().read(MARK, 0, &mut bytes);
        Places::read(&bytes, DATASET).0
    }

    /// Writes the mark, and does not sync it.
    pub(super) fn mark(&self, places: &mut Places, marked: Marked) -> Result<(), SegmentFileError> {
        if self.defect == Defect::MarksNothing {
            return Ok(());
        }
        let Some(at) = places.turn(marked) else { return Ok(()) };
        trace(|| format!("{} marks {marked:x?}", self.name));
        self.disk.borrow_mut().write(MARK, at, &marked.encode(DATASET)).map_err(failed)
    }

    pub(super) fn sync_mark(&self) -> Result<(), SegmentFileError> {
        self.disk.borrow_mut().sync(MARK).map_err(failed)?;
        self.disk.borrow_mut().sync_name(MARK).map_err(failed)
    }

    pub(super) fn remove_mark(&self, places: &mut Places) -> Result<(), SegmentFileError> {
        if self.defect == Defect::KeepsMark {
            return Ok(());
        }
        trace(|| format!("{} removes the mark", self.name));
        self.disk.borrow_mut().remove(MARK).map_err(failed)?;
        *places = Places::default();
        self.disk.borrow_mut().sync_name(MARK).map_err(failed)
    }

    pub(super) fn exists(&self, base: Lsn) -> bool {
        self.disk.borrow().files().contains(&base.0)
    }

    pub(super) fn create(&self, base: Lsn) -> Result<(), SegmentFileError> {
        trace(|| format!("{} makes the file {base}", self.name));
        let mut disk = self.disk.borrow_mut();
        if disk.files().contains(&base.0) {
            disk.remove(base.0).map_err(failed)?;
        }
        disk.set_length(base.0, self.layout.segment_bytes()).map_err(failed)
    }

    pub(super) fn renew(&self, base: Lsn) -> Result<(), SegmentFileError> {
        self.create(Lsn(base.0 + RENEWAL))
    }

    pub(super) fn finish_renewal(&self, base: Lsn) -> Result<(), SegmentFileError> {
        trace(|| format!("{} has {base} anew", self.name));
        self.disk.borrow_mut().rename(base.0 + RENEWAL, base.0).map_err(failed)?;
        self.sync(&[])
    }

    fn written(&self, base: Lsn) -> u64 {
        let renewal = base.0 + RENEWAL;
        if self.disk.borrow().files().contains(&renewal) { renewal } else { base.0 }
    }

    pub(super) fn write(&self, base: Lsn, offset: u64, bytes: &[u8]) -> Result<(), SegmentFileError> {
        self.write_bytes(self.written(base), offset, bytes)
    }

    pub(super) fn write_bytes(&self, file: u64, offset: u64, bytes: &[u8]) -> Result<(), SegmentFileError> {
        trace(|| format!("{} writes {file:#x}, {offset:#x} and {:#x} bytes", self.name, bytes.len()));
        self.disk.borrow_mut().write(file, offset, bytes).map_err(failed)
    }

    pub(super) fn remove(&self, base: Lsn) -> Result<(), SegmentFileError> {
        trace(|| format!("{} removes {base}", self.name));
        self.disk.borrow_mut().remove(base.0).map_err(failed)
    }

    fn head(
        &self,
        dataset: DatasetId,
        base: Lsn,
        needed: Lsn,
    ) -> Result<Option<SegmentHead>, SegmentFileError> {
        let mut bytes = [0; HEAD_BYTES];
        self.disk.borrow().read(base.0, 0, &mut bytes);
        match SegmentHead::decode_at(&bytes, dataset, base) {
            Ok(head) => Ok(Some(head)),
            Err(HeadError::Magic) if bytes == [0; HEAD_BYTES] => Ok(None),
            Err(error) if base.plus(self.layout.segment_bytes()) > needed => {
                Err(SegmentFileError::Head { path: "simulated".into(), error })
            }
            Err(_) => Ok(None),
        }
    }
}

impl LogFiles for Files {
    type Source<'a> = Source<'a>;

    fn heads(
        &self,
        dataset: DatasetId,
        needed_from: Lsn,
    ) -> Result<Vec<(SegmentHead, Source<'_>)>, SegmentFileError> {
        let mut heads = Vec::new();
        for base in self.list()? {
            let head = self.head(dataset, base, needed_from)?;
            heads.extend(head.map(|head| (head, self.source(base))));
        }
        Ok(heads)
    }

    fn list(&self) -> Result<Vec<Lsn>, SegmentFileError> {
        let files = self.disk.borrow().files();
        Ok(files.into_iter().filter(|file| file % self.layout.segment_bytes() == 0).map(Lsn).collect())
    }

    fn source(&self, base: Lsn) -> Source<'_> {
        Source { files: self, base }
    }

    fn read(&self, base: Lsn, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.disk.borrow().read(base.0, offset, target);
        Ok(())
    }

    fn sync(&self, bases: &[Lsn]) -> Result<(), SegmentFileError> {
        if self.defect == Defect::SkipsSync {
            return Ok(());
        }
        trace(|| format!("{} syncs {bases:?}", self.name));
        for base in bases {
            let file = self.written(*base);
            self.disk.borrow_mut().sync(file).map_err(failed)?;
        }
        if self.defect == Defect::SkipsDirectory {
            return Ok(());
        }
        self.disk.borrow_mut().sync_directory().map_err(failed)
    }
}
