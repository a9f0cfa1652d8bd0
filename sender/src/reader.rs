//! The thread that receives feedback and hands it to the loop, batch by batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use imgcast_common::{
    net::{BatchLayout, BatchPool, BatchReceiver, NodeSocket},
    watched,
};
use tokio::sync::mpsc;

use crate::{driver::Input, error::Error};

/// Reads unicast until told to stop.
///
/// # Errors
/// If the socket cannot be set up, or there is no thread to be had.
pub(crate) fn start(
    socket: Arc<NodeSocket>,
    stop: Arc<AtomicBool>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), Error> {
    socket.set_receive_timeout(Some(READER_TIMEOUT))?;
    let pool = BatchPool::new(READER_BATCHES, BatchLayout::plain(FEEDBACK_OCTETS_MAX));
    let mut receiver = BatchReceiver::new(socket, pool)?;
    let panicked = inputs.clone();
    let read = move || {
        while !stop.load(Ordering::Relaxed) {
            let input = match receiver.receive() {
                Ok(Some(batch)) => Input::Datagrams(batch),
                Ok(None) => continue,
                Err(error) => Input::Broken(error.into()),
            };
            let failed = matches!(input, Input::Broken(_));
            if inputs.blocking_send(input).is_err() || failed {
                return;
            }
        }
    };
    let spawned = watched::spawn("receive", read, move |reason| {
        let _ = panicked
            .blocking_send(Input::Broken(Error::Internal { task: "receive".into(), reason }));
    });
    spawned.map(|_| ()).map_err(|source| Error::System { what: "a thread to receive", source })
}

/// No feedback is longer; JOIN is as long as DATA.
const FEEDBACK_OCTETS_MAX: usize = 9_000;
/// Two are read while two are taken in.
const READER_BATCHES: usize = 4;
/// How soon the reader notices that it is over.
const READER_TIMEOUT: Duration = Duration::from_millis(100);
