//! `.berth/model.gguf`: the name by which an engine that takes one file finds it, whatever the file
//! is called. It is known before the download, when the engine's arguments are written.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use berth_units::Bytes;

use crate::{error::Error, layout::Layout, name::FileName};

/// Fails if the link leads to another model of the directory: engines may be running on it.
pub fn is_free(layout: &Layout, model: &FileName) -> Result<(), Error> {
    match other(layout, model) {
        None => Ok(()),
        Some(other) => Err(Error::Occupied {
            directory: layout.root().to_owned(),
            found: format!("has {other} as its model"),
            wanted: model.to_string(),
        }),
    }
}

/// Makes the link to `model`, relative, so that it leads there wherever the volume is mounted.
pub fn leave(layout: &Layout, model: &FileName) -> Result<(), Error> {
    let path = layout.model();
    let target = target(model);
    // Twice, as another pod may make it between the look and the deed.
    for last in [false, true] {
        if fs::read_link(&path).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(());
        }
        is_free(layout, model)?;
        let made = match symlink(&target, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !last => {
                // It leads nowhere, or is something that we never made.
                fs::remove_file(&path)
            }
            other => other,
        };
        made.map_err(|source| layout.failed("make the link", &path, Bytes::ZERO, source))?;
    }
    Ok(())
}

/// The other file to which the link leads.
fn other(layout: &Layout, model: &FileName) -> Option<FileName> {
    let found = fs::read_link(layout.model()).ok()?;
    let name = FileName::try_from(found.to_str()?.strip_prefix("../")?.to_owned()).ok()?;
    (name != *model && layout.file(&name).is_file()).then_some(name)
}

fn target(model: &FileName) -> String {
    format!("../{model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FileName {
        FileName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn the_link_leads_to_the_model_and_to_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        fs::create_dir(layout.own()).unwrap();
        fs::create_dir(directory.path().join("q4")).unwrap();
        fs::write(directory.path().join("q4/a.gguf"), "a").unwrap();
        fs::write(directory.path().join("b.gguf"), "b").unwrap();
        let a = name("q4/a.gguf");
        let leads_to =
            |content: &str| assert_eq!(fs::read(layout.model()).unwrap(), content.as_bytes());

        is_free(&layout, &a).unwrap();
        leave(&layout, &a).unwrap();
        leave(&layout, &a).unwrap();
        leads_to("a");
        for refused in [is_free(&layout, &name("b.gguf")), leave(&layout, &name("b.gguf"))] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.exit_code(), 17);
            assert!(refused.to_string().contains("has q4/a.gguf as its model, not b.gguf"));
        }
        leads_to("a");

        // What leads nowhere, or was not made by us, is in nobody's use.
        for wrong in ["../gone.gguf", "/etc/passwd", "../../b.gguf"] {
            fs::remove_file(layout.model()).unwrap();
            symlink(wrong, layout.model()).unwrap();
            leave(&layout, &a).unwrap();
            leads_to("a");
        }
        fs::remove_file(layout.model()).unwrap();
        fs::write(layout.model(), "file").unwrap();
        leave(&layout, &a).unwrap();
        leads_to("a");
    }
}
