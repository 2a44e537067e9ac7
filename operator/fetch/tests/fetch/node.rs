//! A node's cache: a folder that is prepared while pods start, shared by pods of a group.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::{
    mirror::{Fault, Mirror, model},
    run::{Node, Running, as_user, until},
};

const WEIGHTS: &str = "model.safetensors";
const GROUP: u32 = 61_701;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything below a folder.
fn tree(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: std::path::PathBuf| {
        let below = if path.is_dir() { tree(&path) } else { vec![] };
        std::iter::once(path).chain(below)
    };
    entries.flat_map(below).collect()
}

/// The namespace's folder and the model's directory in it.
fn folder(node: &Node) -> (std::path::PathBuf, String) {
    let folder = node.beside("team-a");
    let model = folder.join("hf--org--name--0123456789abc");
    (folder, model.to_str().unwrap().to_owned())
}

fn start(node: &Node, mirror: &Mirror, user: &[String], more: &[&str]) -> Running {
    let endpoint = mirror.endpoint();
    let arguments = node.arguments(&endpoint, more);
    let user: Vec<_> = user.iter().map(String::as_str).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    node.start(&user, &arguments, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_waited_for() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let (folder, model) = folder(&node);
    let running = node.fetch(&mirror.endpoint(), &["--into", &model, "--wait", "1m"]);
    until(|| running.said().contains("is not prepared yet (cannot create")).await;
    assert_eq!(mirror.seen().len(), 0);
    fs::create_dir(&folder).unwrap();
    let done = running.end().await;
    done.succeeds();
    assert_eq!(done.said.matches("not prepared").count(), 1, "{done:?}");
    assert!(fs::read(Path::new(&model).join(WEIGHTS)).unwrap() == mirror.content(WEIGHTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_prepares_it() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let (folder, model) = folder(&node);
    let into = |wait| node.fetch(&mirror.endpoint(), &["--into", &model, "--wait", wait]);
    let parts = [
        "the cache on this node was not prepared within 300ms: cannot create",
        &model,
        "No such file",
        "the pod that prepares it",
    ];
    into("300ms").end().await.fails(20, &parts);
    assert!(!folder.exists() && mirror.seen().is_empty());
    // A volume of the pod's own is prepared by nobody.
    into("0s").end().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_for_the_group() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let (folder, model) = folder(&node);
    fs::create_dir(&folder).unwrap();
    set_mode(&folder, 0o2770);
    mirror.always(WEIGHTS, Fault::Status(404, None));
    node.fetch(&mirror.endpoint(), &["--into", &model]).end().await.fails(12, &[WEIGHTS]);
    let check = || {
        for path in tree(&folder) {
            let expected = if path.is_dir() { 0o2770 } else { 0o660 };
            assert_eq!(mode(&path), expected, "{}", path.display());
        }
    };
    check();
    let mirror = Mirror::of(crate::mirror::model()).await;
    node.fetch(&mirror.endpoint(), &["--into", &model]).end().await.succeeds();
    check();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_group_goes_on() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let Some(first) = as_user(61_001, Some(GROUP)) else { return };
    let second = as_user(61_002, Some(GROUP)).unwrap();
    let stranger = as_user(61_003, None).unwrap();
    let (folder, model) = folder(&node);
    set_mode(&node.beside(""), 0o755);
    // As the kubelet makes it, and then as it is prepared.
    fs::create_dir(&folder).unwrap();
    mirror.once(WEIGHTS, Fault::Hold(1 << 20));
    let into = ["--into", &model, "--wait", "1m", "--timeout", "1m"];
    let mut running = start(&node, &mirror, &first, &into);
    until(|| running.said().contains("is not prepared yet")).await;
    std::os::unix::fs::chown(&folder, Some(0), Some(GROUP)).unwrap();
    set_mode(&folder, 0o2770);
    until(|| mirror.served_of(WEIGHTS) >= 1 << 20).await;
    let partial =
        || tree(&folder).into_iter().find(|path| path.to_str().unwrap().contains("partial/model"));
    until(|| partial().is_some_and(|path| path.metadata().unwrap().len() == 1 << 20)).await;
    running.child.kill().await.unwrap();

    let wait = ["--into", &model, "--wait", "300ms"];
    let done = start(&node, &mirror, &stranger, &wait).end().await;
    done.fails(20, &["cannot read", "Permission denied"]);

    let done = start(&node, &mirror, &second, &wait).end().await;
    done.succeeds();
    assert!(done.said.contains("going on at 1048576"), "{done:?}");
    assert_eq!(mirror.served_of(WEIGHTS), 3 << 20);
    for path in tree(&folder) {
        let found = path.metadata().unwrap();
        assert_eq!(found.gid(), GROUP, "{}", path.display());
    }
    // And what the first one needs besides.
    let more = ["--into", &model, "--files", "tokenizer.json"];
    start(&node, &mirror, &first, &more).end().await.succeeds();
}
