//! Command lines, units, names and ids: what an operator, a script or a boot parameter says.

use clap::Parser;
use imgcast_common::{
    id::ImageId,
    units::{BitRate, ByteSize, Seconds},
    wire::Name,
};

/// The first octet chooses what the rest is read as; words of a command line end at line breaks.
pub(super) fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match choice % 4 {
        0 => units(&text),
        1 => names(&text),
        2 => {
            let words = ["imgcast-receiver"].into_iter().chain(text.split('\n'));
            if let Ok(args) = imgcast_receiver::cli::Args::try_parse_from(words) {
                receiver(args);
            }
        }
        _ => {
            let words = ["imgcast-sender"].into_iter().chain(text.split('\n'));
            if let Ok(args) = imgcast_sender::cli::Args::try_parse_from(words) {
                let _ = imgcast_sender::config::Config::try_from(args).map_err(|it| it.to_string());
            }
        }
    }
}

fn receiver(args: imgcast_receiver::cli::Args) {
    use imgcast_receiver::{
        cli::Command,
        config::{ListConfig, ReceiveConfig},
    };
    match args.command {
        Command::Receive(args) => {
            let config = ReceiveConfig::try_from(args).map_err(|error| error.to_string());
            let Ok(config) = config else { return };
            assert!(config.drop_parts_per_million <= 1_000_000 && config.output.as_os_str() != "-");
        }
        Command::List(args) => drop(ListConfig::try_from(args).map_err(|error| error.to_string())),
    }
}

/// What is understood can be shown, and what is shown for whole numbers is understood again.
fn units(text: &str) {
    if let Ok(size) = text.parse::<ByteSize>() {
        assert!(size.0 < 9 << 60);
        assert!(size.to_string().parse::<ByteSize>().is_ok(), "{size}");
    }
    if let Ok(rate) = text.parse::<BitRate>() {
        assert!(rate.0 > 0 && rate.to_string().parse::<BitRate>().is_ok(), "{rate}");
    }
    if let Ok(Seconds(time)) = text.parse::<Seconds>() {
        assert!(time.as_secs() <= 315_576_000, "{time:?}");
        assert!(!Seconds(time).to_string().is_empty());
    }
}

fn names(text: &str) {
    if let Some(name) = Name::new(text) {
        assert!(!name.as_str().contains(['/', '\0', '\n', ' ']) && name.as_str() != "..");
    }
    if let Some(id) = ImageId::from_hex(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
}
