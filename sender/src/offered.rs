//! The image before the session: opened, cut to the interface's MTU, and known by its hash.

use std::{sync::Arc, thread};

use imgcast_common::{
    layout::{IMAGE_BYTES_MAX, Layout, symbol_size_for},
    net::{Interface, NetError},
    sectors::{GPT_OCTETS, SectorSize},
    tree::Index,
    units::ByteSize,
};

use crate::{
    config::Config,
    error::Error,
    image::{ImageSource, IndexCache, build_index},
    report::Report,
};

/// The image, ready to be offered.
pub(crate) struct Offered {
    pub(crate) source: Arc<ImageSource>,
    pub(crate) layout: Layout,
    pub(crate) index: Arc<Index>,
    /// What the GPT of the image counts in, if it has one.
    pub(crate) sector_size: Option<SectorSize>,
    pub(crate) cache: IndexCache,
}

impl Offered {
    /// Opens the image, and finds out its id: from the cache, or by hashing all of it.
    pub(crate) fn open(
        config: &Config,
        interface: &Interface,
        report: &mut Report,
    ) -> Result<Self, Error> {
        let source = ImageSource::open(&config.image)?;
        let payload_max = interface.max_datagram_octets();
        let symbol_size = symbol_size_for(payload_max).ok_or(NetError::DatagramTooLarge {
            destination: config.rendezvous,
            datagram_octets: DATAGRAM_OCTETS_LEAST,
            octets_max: payload_max,
            mtu_octets: interface.mtu_octets,
            interface: interface.name.clone(),
        })?;
        let layout =
            Layout::for_image(source.bytes(), symbol_size).ok_or_else(|| Error::ImageTooLarge {
                path: config.image.clone(),
                size: ByteSize(source.bytes()),
                size_max: ByteSize(IMAGE_BYTES_MAX),
            })?;
        let cache = IndexCache::of_user();
        let index = match cache.load(&source, &layout) {
            Some(index) => index,
            None => {
                let threads = thread::available_parallelism().map_or(1, usize::from);
                let total = source.bytes();
                let index = build_index(&source, &layout, threads, |done| {
                    report.hashing(done, total);
                })?;
                cache.store(&source, &layout, &index);
                index
            }
        };
        let sector_size = sector_size(&source)?;
        let (source, index) = (Arc::new(source), Arc::new(index));
        report.offered(&config.name, index.image_id(), &layout, index.zero(), interface);
        Ok(Self { source, layout, index, sector_size, cache })
    }
}

fn sector_size(source: &ImageSource) -> Result<Option<SectorSize>, Error> {
    let octets = usize::try_from(source.bytes()).unwrap_or(usize::MAX).min(GPT_OCTETS);
    let mut beginning = vec![0; octets];
    source.read_at(0, &mut beginning)?;
    Ok(SectorSize::of_gpt(&beginning))
}

/// A symbol of the smallest size with what stands before and behind it.
const DATAGRAM_OCTETS_LEAST: usize = 120;
