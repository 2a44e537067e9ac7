//! `docs/cli.md` shows what the command really prints.
//!
//! Each `$ kubectl berth …` of the page is run, and its output compared with the lines below it.
//! After a change that is meant: `BERTH_UPDATE=1 cargo test -p kubectl-berth --test page`, and read
//! the difference.

mod common;

use std::{env, fs};

use common::{berth, repository};

const PROMPT: &str = "$ kubectl berth ";

#[test]
fn the_page_shows_what_the_command_prints() {
    let path = repository().join("docs/cli.md");
    let page = fs::read_to_string(&path).unwrap();
    let fresh = with_output(&page);
    assert!(fresh.matches(PROMPT).count() >= 6, "the page has lost its examples");
    if env::var_os("BERTH_UPDATE").is_some() {
        fs::write(&path, &fresh).unwrap();
    } else if fresh != page {
        let differing = fresh.lines().zip(page.lines()).find(|(fresh, page)| fresh != page);
        panic!(
            "docs/cli.md is not what the command prints (BERTH_UPDATE=1 writes it anew): \
             {differing:#?}"
        );
    }
}

/// The page with the output of each command below it.
fn with_output(page: &str) -> String {
    let mut fresh = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        fresh.push_str(line);
        fresh.push('\n');
        let Some(mut command) = line.strip_prefix(PROMPT).map(str::to_owned) else { continue };
        while let Some(begun) = command.strip_suffix('\\') {
            let rest = lines.next().expect("a command that ends");
            fresh.push_str(rest);
            fresh.push('\n');
            command = format!("{begun} {}", rest.trim());
        }
        let arguments: Vec<&str> =
            command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
        let output = berth(&arguments);
        fresh.push_str(&String::from_utf8_lossy(&output.stdout));
        fresh.push_str(&String::from_utf8_lossy(&output.stderr));
        // What stood there before.
        for old in lines.by_ref() {
            if old == "```" {
                fresh.push_str("```\n");
                break;
            }
        }
    }
    fresh
}
