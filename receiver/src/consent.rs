//! The target, opened with the operator's consent: what a name leads to is shown, and who sits at a
//! terminal is asked before a disk is overwritten, wherever the rest of what is said goes. Nobody
//! else is: scripts would wait for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_NOCTTY;

use crate::{
    config::ReceiveConfig,
    error::{Error, TargetError},
    image::{Disk, Selected, Target},
};

/// Opens what the operator calls the output. If it is a disk about which nobody was asked, it is to
/// be said that this is overwritten, once that is certain.
///
/// # Errors
/// [`Error::Target`] if it is refused, nobody agrees, or who could agree cannot be asked.
pub(crate) fn open_target(config: &ReceiveConfig) -> Result<(Target, Option<Disk>), Error> {
    let selected = Selected::find(&config.output)?;
    let (input, mut output) = (io::stdin(), io::stderr());
    if let Some(leads_to) = &selected.leads_to {
        // Whoever closed our standard error does not want to know.
        let _ = writeln!(output, "{} is {}", config.output.display(), leads_to.display());
    }
    let target = Target::open_with(&selected.path, config.target, &config.keep)?;
    let mut untold = target.disk();
    if !config.is_agreed
        && input.is_terminal()
        && let Some(disk) = untold.take()
    {
        if output.is_terminal() {
            ask(&disk, &mut input.lock(), &mut output)?;
        } else {
            ask(&disk, &mut input.lock(), &mut terminal(&disk, &TERMINALS)?)?;
        }
    }
    Ok((target, untold))
}

/// The terminal of whoever types, where standard error leads elsewhere: the first of `places` that
/// is one.
fn terminal(disk: &Disk, places: &[&str]) -> Result<File, TargetError> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(O_NOCTTY);
    let mut opened = places.iter().filter_map(|place| options.open(Path::new(place)).ok());
    let found = opened.find(IsTerminal::is_terminal);
    found.ok_or_else(|| TargetError::Unasked { path: disk.path.clone() })
}

/// Shows what is lost, and waits for an answer.
fn ask(disk: &Disk, input: &mut impl BufRead, output: &mut impl Write) -> Result<(), TargetError> {
    let mut text = format!("this overwrites {disk}\n");
    for partition in &disk.partitions {
        text += &format!("  {partition}\n");
    }
    text += "overwrite it? Type yes or no: ";
    let declined = || TargetError::Declined { path: disk.path.clone() };
    loop {
        let asked = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        let mut answer = String::new();
        let octets = asked.and_then(|()| input.read_line(&mut answer)).map_err(|_| declined())?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "yes" | "y" => return Ok(()),
            "no" | "n" => return Err(declined()),
            // The end of input is an answer, too.
            _ if octets == 0 => return Err(declined()),
            _ => text = "yes or no: ".to_owned(),
        }
    }
}

/// The one that is typed at, which another user may own, and the one that controls this process.
const TERMINALS: [&str; 2] = ["/proc/self/fd/0", "/dev/tty"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Partition;

    fn disk() -> Disk {
        let partition = |number: u32, label: Option<&str>| Partition {
            path: format!("/dev/sda{number}").into(),
            bytes: 1 << 30,
            label: label.map(str::to_owned),
        };
        Disk {
            path: "/dev/sda".into(),
            bytes: 512 << 30,
            model: Some("ACME disk".into()),
            serial: Some("S1".into()),
            wwn: None,
            partitions: vec![partition(1, Some("EFI")), partition(2, None)],
        }
    }

    /// What is shown when this is typed, and whether it was agreed.
    fn asked(typed: &str) -> (String, bool) {
        let disk = disk();
        let mut shown = Vec::new();
        let agreed = match ask(&disk, &mut typed.as_bytes(), &mut shown) {
            Ok(()) => true,
            Err(TargetError::Declined { path }) => {
                assert_eq!(path, disk.path);
                false
            }
            Err(error) => panic!("{error}"),
        };
        (String::from_utf8(shown).unwrap(), agreed)
    }

    #[test]
    fn size_model_and_partitions_are_shown_before_the_question() {
        let (shown, agreed) = asked("yes\n");
        assert!(agreed);
        assert_eq!(
            shown,
            "this overwrites /dev/sda (512 GiB, ACME disk, serial=S1)\n\
             \x20 /dev/sda1  1.0 GiB  EFI\n\
             \x20 /dev/sda2  1.0 GiB\n\
             overwrite it? Type yes or no: "
        );
    }

    #[test]
    fn who_cannot_be_asked_is_told_how_to_agree() {
        for places in [&[][..], &["/imgcast/nowhere", "/dev/null"]] {
            let error = terminal(&disk(), places).unwrap_err();
            assert_eq!(error.code(), "target-unasked");
            assert!(error.to_string().contains("/dev/sda is left as it is"), "{error}");
            assert!(error.to_string().contains("--yes"), "{error}");
        }
    }

    #[test]
    fn only_yes_is_yes_and_what_is_neither_is_asked_again() {
        assert!(asked("YES\n").1 && asked(" y \n").1);
        for typed in ["no\n", "N\n", "", "\n\n", "of course\n", "yess\nno\nyes\n"] {
            assert!(!asked(typed).1, "{typed:?}");
        }
        let (shown, agreed) = asked("\nwhat\ny\n");
        assert!(agreed && shown.ends_with("no: yes or no: yes or no: "), "{shown}");
    }
}
