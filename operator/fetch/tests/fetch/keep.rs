//! A node's cache, kept: what is removed, what is not, and folders as they should be.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use crate::{
    mirror::{Fault, Mirror, model},
    run::{Done, Node, as_user, as_user_with, skip, until},
};

const GROUP: u32 = 61_702;
const KEY: &str = "hf--org--name--0123456789abc";

/// The folder of all namespaces.
fn root(node: &Node) -> PathBuf {
    let root = node.beside("namespaces");
    fs::create_dir_all(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    root
}

async fn keep(node: &Node, user: &[String], more: &[&str]) -> Done {
    let root = root(node);
    let user: Vec<_> = user.iter().map(String::as_str).collect();
    let arguments = [&["keep", "--root", root.to_str().unwrap()], more].concat();
    node.start(&user, &arguments, None).end().await
}

/// A model of 8 blocks of 512 bytes, as far as an eviction is concerned.
fn put(folder: &Path, key: &str) -> PathBuf {
    let model = folder.join(key);
    fs::create_dir_all(model.join(".berth")).unwrap();
    fs::write(model.join(".berth/lock"), "").unwrap();
    fs::create_dir_all(model.join("a/b")).unwrap();
    fs::write(model.join("a/b/weights"), vec![7; 4096]).unwrap();
    symlink("../a/b/weights", model.join(".berth/model.gguf")).unwrap();
    model
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_go_goes_and_all_else_stays() {
    let node = Node::new();
    let (a, b) = (root(&node).join("team-a"), root(&node).join("team-b"));
    put(&a, KEY);
    put(&a, "other");
    put(&b, KEY);
    let evict = ["--evict", &format!("team-a/{KEY}"), "--evict", "team-a/never", "--evict", "no/x"];
    let done = keep(&node, &[], &evict).await;
    done.succeeds();
    assert_eq!(done.out, format!("removed team-a/{KEY}, 4096 bytes\n"));
    assert_eq!((names(&a), names(&b)), (vec!["other".to_owned()], vec![KEY.to_owned()]));
    let done = keep(&node, &[], &evict).await;
    done.succeeds();
    assert_eq!(done.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_that_was_cut_off_is_ended_by_the_next_one_there() {
    let node = Node::new();
    let (a, b) = (root(&node).join("team-a"), root(&node).join("team-b"));
    put(&a, KEY);
    put(&a, &format!(".evicted-1-{KEY}"));
    put(&a, ".evicted-7-an-other");
    put(&a, ".evicted-strange");
    put(&b, ".evicted-1-left");
    let done = keep(&node, &[], &["--evict", &format!("team-a/{KEY}")]).await;
    done.succeeds();
    let mut lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.remove(0), format!("removed team-a/{KEY}, 4096 bytes"));
    lines.sort_unstable();
    let left = |what: &str| format!("removed what was left of team-a/{what}, 4096 bytes");
    assert_eq!(lines, [left("an-other"), left(KEY), left("strange")]);
    assert_eq!((names(&a).len(), names(&b).len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_nowhere() {
    let node = Node::new();
    let folder = root(&node).join("team-a");
    let outside = put(&node.beside(""), "outside");
    let whole = || assert!(outside.join("a/b/weights").exists());
    symlink(&outside, put(&folder, KEY).join("a/link")).unwrap();
    symlink(&outside, folder.join("link")).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    symlink(&folder, root(&node).join("linked")).unwrap();
    symlink(&outside, folder.join(".evicted-1-link")).unwrap();

    for refused in ["team-a/link", "team-a/file", "linked/other"] {
        // What can be done is done.
        put(&folder, "other");
        let done = keep(&node, &[], &["--evict", refused, "--evict", "team-a/other"]).await;
        done.fails(1, &["is a link or a file where a folder should be"]);
        assert!(done.out.starts_with("removed team-a/other, 4096 bytes\n"), "{done:?}");
        whole();
    }
    keep(&node, &[], &["--evict", &format!("team-a/{KEY}")]).await.succeeds();
    whole();
    assert_eq!(names(&folder), ["file", "link"]);
    let group = GROUP.to_string();
    symlink(&outside, root(&node).join("team-b")).unwrap();
    fs::write(root(&node).join("team-c"), "").unwrap();
    for name in ["team-b", "team-c"] {
        let done = keep(&node, &[], &["--group", &group, "--prepare", name]).await;
        done.fails(1, &[name, "is a link or a file"]);
        assert_ne!(fs::metadata(&outside).unwrap().gid(), GROUP);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_downloaded_stays() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let folder = root(&node).join("team-a");
    put(&folder, "other");
    let model = folder.join(KEY);
    let into = ["--into", model.to_str().unwrap(), "--timeout", "1m"];
    mirror.once("model.safetensors", Fault::Hold(1 << 20));
    let running = node.fetch(&mirror.endpoint(), &into);
    until(|| mirror.served_of("model.safetensors") >= 1 << 20).await;
    let evict = ["--evict", &format!("team-a/{KEY}"), "--evict", "team-a/other"];
    let done = keep(&node, &[], &evict).await;
    done.fails(21, &["in use, and left: team-a/hf--org--name", "pod ", "else is done"]);
    assert_eq!(done.out, "removed team-a/other, 4096 bytes\n");
    mirror.release();
    running.end().await.succeeds();
    let done = keep(&node, &[], &evict).await;
    done.succeeds();
    assert!(done.out.starts_with(&format!("removed team-a/{KEY}, 3")), "{done:?}");
    assert_eq!(names(&folder), [""; 0]);
}

/// The lock is that of the removed directory.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_what_is_removed_starts_anew() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let folder = root(&node).join("team-a");
    let model = put(&folder, KEY);
    let lock = fs::File::open(model.join(".berth/lock")).unwrap();
    lock.lock().unwrap();
    let into = ["--into", model.to_str().unwrap()];
    let running = node.fetch(&mirror.endpoint(), &into);
    until(|| running.said().contains("waiting for it")).await;
    fs::rename(&model, folder.join(format!(".evicted-1-{KEY}"))).unwrap();
    drop(lock);
    let done = running.end().await;
    done.succeeds();
    assert!(done.said.contains("was removed meanwhile"), "{done:?}");
    assert!(model.join(".berth/manifest.json").exists());
    assert!(!folder.join(format!(".evicted-1-{KEY}/model.safetensors")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_prepared_with_two_capabilities() {
    let node = Node::new();
    let group = GROUP.to_string();
    let capabilities = "-all,+chown,+fowner";
    let Some(keeper) = as_user_with(0, Some(GROUP), capabilities) else { return };
    let someone = as_user(61_004, Some(GROUP)).unwrap();
    fs::set_permissions(node.beside(""), fs::Permissions::from_mode(0o755)).unwrap();
    let check = |name: &str| {
        let found = fs::metadata(root(&node).join(name)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, GROUP, 0o2770), "{name}");
        found.ctime_nsec()
    };
    let wrong = root(&node).join("wrong");
    fs::create_dir(&wrong).unwrap();
    chown(&wrong, Some(61_004), Some(61_004)).unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o050)).unwrap();

    let prepare = ["--group", &group, "--prepare", "new", "--prepare", "wrong"];
    let done = keep(&node, &keeper, &prepare).await;
    done.succeeds();
    assert_eq!(done.out, "prepared new\nprepared wrong\n");
    let changed = check("new");
    check("wrong");
    keep(&node, &keeper, &prepare).await.succeeds();
    assert_eq!(check("new"), changed, "it was changed again");

    // One of the group makes room in it, whoever made what is there; so does the keeper.
    let mirror = Mirror::of(model()).await;
    for (remover, evict) in [(&someone, "new/model"), (&keeper, "new/model")] {
        let user = as_user(61_005, Some(GROUP)).unwrap();
        let user: Vec<_> = user.iter().map(String::as_str).collect();
        let into = root(&node).join(evict);
        let arguments = node.arguments(&mirror.endpoint(), &["--into", into.to_str().unwrap()]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        node.start(&user, &arguments, None).end().await.succeeds();
        let prepares: &[&str] = if remover == &keeper { &prepare } else { &[] };
        let done = keep(&node, remover, &[&["--evict", evict], prepares].concat()).await;
        done.succeeds();
        assert!(done.out.starts_with("removed new/model, 3"), "{done:?}");
    }
    assert_eq!(names(&root(&node).join("new")), [""; 0]);

    // Without the group the kernel takes the bit that hands the group down.
    let alone = as_user_with(0, None, capabilities).unwrap();
    let done = keep(&node, &alone, &["--group", &group, "--prepare", "third"]).await;
    done.fails(1, &["supplementalGroups", "third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_prepares() {
    let node = Node::new();
    let group = GROUP.to_string();
    if rustix::process::geteuid().is_root() {
        return skip("what happens to others than root is tested by others than root");
    }
    let done = keep(&node, &[], &["--group", &group, "--prepare", "team-a"]).await;
    done.fails(1, &["cannot change the owner of", "team-a", "not permitted"]);
}
