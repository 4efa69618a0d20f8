//! What may go: images and layers that nothing uses, by the share of the disk that is taken, as a kubelet does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::index::Index;
use super::{Freed, ImageStore, Inner, State};
use crate::image::{IoContext as _, Result};

/// Uses are written down by the hour, so that looking at an image does not write to the disk each time.
const HOUR: u64 = 3600;

/// What is to be kept whatever the disk says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keep {
    /// Ids of images that containers run from.
    pub in_use: BTreeSet<String>,
    /// Names by which somebody may ask for an image at any time, as Pods write them.
    pub named: BTreeSet<String>,
}

/// When a store is cleaned up, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Nothing that has a name goes until this many hundredths of the disk are taken.
    pub high: u8,
    /// Then the longest unused goes first, until so many are.
    pub low: u8,
    /// Bytes of layers that only later builds could use.
    pub cache: u64,
    /// What was used within this time stays: it may be about to be used.
    pub recent: Duration,
}

impl Default for Bounds {
    /// The shares of a kubelet; of the build cache so much as some dozen applications' tools and dependencies take; an
    /// hour, which the building of an application of many images does not exceed.
    fn default() -> Self {
        Self { high: 85, low: 80, cache: 10 << 30, recent: Duration::from_secs(HOUR) }
    }
}

impl Bounds {
    /// Everything that nothing uses, however much room there is; images with a name only where `all` is set.
    pub fn prune(all: bool) -> Self {
        let (high, low) = if all { (0, 0) } else { (101, 101) };
        Self { high, low, cache: 0, recent: Duration::ZERO }
    }
}

impl ImageStore {
    /// Removes images without a name that nothing uses, what the build cache has beyond its bound, and where the disk
    /// is too full the build cache and then named images, the longest unused first. Images of archives in a watched
    /// directory stay, as they would only come again, and so does whatever an operation under way counts on.
    ///
    /// # Errors
    /// Of the file system; what was forgotten but could not be deleted goes at the next open.
    pub fn tidy(&self, keep: &Keep, bounds: &Bounds) -> Result<Freed> {
        let disk = self.inner.disk()?;
        let now = seconds();
        self.inner.remove_where(|index, used, pinned| {
            note_uses(index, used, keep, now);
            let mut plan = Collection { index, now, recent: bounds.recent.as_secs(), bytes: 0, images: 0 };
            plan.drop_nameless(keep);
            plan.drop_cache(bounds.cache, pinned);
            let taken = (disk.total - disk.available) as u128 * 100;
            if taken > u128::from(bounds.high) * u128::from(disk.total) {
                let wanted = u128::from(disk.total) * u128::from(bounds.low) / 100;
                let excess = (u128::from(disk.total - disk.available)).saturating_sub(wanted);
                plan.drop_until(u64::try_from(excess).unwrap_or(u64::MAX), keep, pinned);
            }
            (plan.images, index.drop_unused(pinned))
        })
    }
}

/// A file system's bytes.
struct Disk {
    total: u64,
    available: u64,
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Writes down what was used since the last time.
fn note_uses(index: &mut Index, used: &BTreeMap<String, u64>, keep: &Keep, now: u64) {
    for (id, image) in &mut index.images {
        let last = if keep.in_use.contains(id) { now } else { used.get(id).copied().unwrap_or_default() };
        if last > image.used + HOUR {
            image.used = last;
        }
    }
    for (id, layer) in &mut index.layers {
        let last = used.get(id).copied().unwrap_or_default();
        if last > layer.used + HOUR {
            layer.used = last;
        }
    }
}

/// A collection under way, on a copy of the index that replaces it when all is decided.
struct Collection<'i> {
    index: &'i mut Index,
    now: u64,
    recent: u64,
    /// Of layers that went.
    bytes: u64,
    images: usize,
}

impl Collection<'_> {
    fn is_recent(&self, used: u64) -> bool {
        self.recent > 0 && used + self.recent > self.now
    }

    fn drop_nameless(&mut self, keep: &Keep) {
        self.images += self.index.drop_images(&keep.in_use);
    }

    /// Layers that a build step remembers and no image has, the longest unused first, with their sizes.
    fn cache(&self, pinned: &dyn Fn(&str) -> bool) -> Vec<(u64, String, u64)> {
        let in_images: BTreeSet<&String> = self.index.images.values().flat_map(|i| &i.layers).collect();
        let remembered: BTreeSet<&String> = self.index.steps.values().collect();
        let unused =
            self.index.layers.iter().filter(|(id, _)| !in_images.contains(id) && remembered.contains(id));
        let mut cache: Vec<_> =
            unused.filter(|(id, _)| !pinned(id)).map(|(id, l)| (l.used, id.clone(), l.size)).collect();
        cache.sort();
        cache
    }

    fn forget_layer(&mut self, id: &str, size: u64) {
        self.index.steps.retain(|_, result| result != id);
        self.bytes += size;
    }

    fn drop_cache(&mut self, bound: u64, pinned: &dyn Fn(&str) -> bool) {
        let cache = self.cache(pinned);
        let mut size: u64 = cache.iter().map(|(_, _, size)| size).sum();
        for (used, id, bytes) in cache {
            if size <= bound {
                break;
            }
            if !self.is_recent(used) {
                self.forget_layer(&id, bytes);
                size -= bytes;
            }
        }
    }

    /// The build cache first: it can be made again.
    fn drop_until(&mut self, excess: u64, keep: &Keep, pinned: &dyn Fn(&str) -> bool) {
        let before = self.bytes;
        for (used, id, bytes) in self.cache(pinned) {
            if self.bytes - before >= excess {
                return;
            }
            if !self.is_recent(used) {
                self.forget_layer(&id, bytes);
            }
        }
        let named: BTreeSet<String> =
            keep.named.iter().filter_map(|name| self.index.find(name).ok().flatten()).collect();
        let archived: BTreeSet<&String> = self.index.archives.values().flat_map(|a| &a.images).collect();
        let may_go = |id: &String| !keep.in_use.contains(id) && !named.contains(id) && !archived.contains(id);
        let images = self.index.images.iter().filter(|(id, image)| may_go(id) && !self.is_recent(image.used));
        let mut images: Vec<(u64, String)> = images.map(|(id, image)| (image.used, id.clone())).collect();
        images.sort();
        for (_, id) in images {
            if self.bytes - before >= excess {
                return;
            }
            let Some(image) = self.index.images.remove(&id) else { continue };
            self.images += 1;
            for layer in image.layers {
                let shared = self.index.images.values().any(|other| other.layers.contains(&layer));
                if !shared && !pinned(&layer) {
                    let size = self.index.layers.get(&layer).map_or(0, |l| l.size);
                    self.forget_layer(&layer, size);
                }
            }
        }
    }
}

impl Inner {
    fn disk(&self) -> Result<Disk> {
        let space = nix::sys::statvfs::statvfs(&self.dir).at("look at the disk of", &self.dir)?;
        let size = space.fragment_size();
        // As a kubelet counts: what only root may still use counts as taken.
        Ok(Disk { total: (space.blocks() * size).max(1), available: space.blocks_available() * size })
    }

    /// Somebody looked at an image or counted on a layer.
    pub(super) fn note_use(state: &mut State, id: &str) {
        let now = seconds();
        match state.used.get_mut(id) {
            Some(last) => *last = now,
            None => {
                state.used.insert(id.to_owned(), now);
            }
        }
    }
}

/// When something new was made.
pub(super) fn made() -> u64 {
    seconds()
}
