//! Otto's own examples, on which many Appfiles depend as `github.com/hashicorp/otto/examples/NAME`.
//!
//! Otto's repository contains only its web site since the project ended, so the examples can no longer be fetched. Each
//! consists of an image, a published port and an identity.

use super::source::{Remote, Tool};
use crate::model::ID_FILE;

/// Name, image, flags of `docker run`, identity.
const EXAMPLES: [(&str, &str, &str, &str); 5] = [
    ("memcached", "memcached:1.4", "-p 11211:11211", "4aebfc7f-3172-b6b1-a757-8c383cbdabbc"),
    ("mongodb", "mongo:3.0", "-p 27017:27017", "24cbbebc-fc41-53b4-c844-60d642fb523c"),
    (
        "mysql",
        "mysql:5.7",
        "-p 3306:3306 -e MYSQL_ROOT_PASSWORD=root",
        "c7da65de-2b9c-0585-8992-ed8e5b6ed06e",
    ),
    ("postgresql", "postgres:9.5", "-p 5432:5432", "b0f8aaef-4cb4-2ef1-cb31-07cbbd925c7d"),
    ("redis", "redis:3", "-p 6379:6379", "a6d8b83a-5ec4-8318-a8ec-20964e865b51"),
];

/// Names and texts of the files of the example that `remote` refers to, if it is one.
pub(super) fn files(remote: &Remote) -> Option<[(&'static str, String); 2]> {
    let otto = remote.tool == Tool::Git
        && remote.revision.is_none()
        && remote.address.eq_ignore_ascii_case("https://github.com/hashicorp/otto.git");
    let example = remote.subdir.as_deref().filter(|_| otto)?.strip_prefix("examples/")?;
    let (name, image, run_args, id) = EXAMPLES.iter().find(|(name, ..)| *name == example)?;
    let appfile = format!(
        "# Otto's example {name}, which its repository no longer holds. To have another version or other settings,\n\
         # write an Appfile like this one in a directory of your own and depend on that.\n\
         application {{\n  name = \"{name}\"\n  type = \"docker-external\"\n}}\n\n\
         customization \"docker\" {{\n  image    = \"{image}\"\n  run_args = \"{run_args}\"\n}}\n"
    );
    Some([("Appfile", appfile), (ID_FILE, format!("{id}\n"))])
}
