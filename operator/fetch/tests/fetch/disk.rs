//! Volumes that are full, or may not be written. A mount namespace of its own gives each test a
//! small tmpfs, and nothing has to be taken down.

use std::{fs, process::Command};

use crate::{
    mirror::{Fault, Mirror, model, noise},
    run::{Node, skip, until},
};

/// The program that runs `script` and then the command after it in a mount namespace; `None`,
/// loudly, where that is not allowed.
fn namespaced(script: &str) -> Option<Vec<String>> {
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let works = Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["sh", "-c", "mount -t tmpfs none /mnt"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        skip("there are no mount namespaces here, so no volume can be made full");
        return None;
    }
    let script = format!("{script}\nexec \"$@\"");
    let rest = ["sh", "-ec", &script, "sh"];
    Some(unshare.iter().chain(&rest).map(|&part| part.to_owned()).collect())
}

fn run(node: &Node, mirror: &Mirror, program: &[String], more: &[&str]) -> crate::run::Running {
    let endpoint = mirror.endpoint();
    let arguments = node.arguments(&endpoint, more);
    let texts = |all: &[String]| all.iter().map(|s| (*s).clone()).collect::<Vec<_>>();
    let (program, arguments) = (texts(program), texts(&arguments));
    let program: Vec<_> = program.iter().map(String::as_str).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    node.start(&program, &arguments, None)
}

fn tmpfs(node: &Node, options: &str) -> String {
    let model = node.model();
    fs::create_dir_all(&model).unwrap();
    format!("mount -t tmpfs -o {options} none {}", model.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_looked_at_before_anything_is_fetched() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let Some(program) = namespaced(&tmpfs(&node, "size=2m")) else { return };
    let done = run(&node, &mirror, &program, &[]).end().await;
    done.fails(13, &["is full", "4 MiB more are needed", "2 MiB are free"]);
    assert_eq!(mirror.served(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_waited_for() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let evict = node.beside("evict");
    let script = format!(
        "{mount}
        head -c 3m /dev/zero > {model}/other
        (until [ -e {evict} ] || [ ! -e {said} ]; do sleep 0.02; done; rm {model}/other) &",
        mount = tmpfs(&node, "size=5m"),
        model = node.model().display(),
        evict = evict.display(),
        // Gone with the test.
        said = node.beside("").display(),
    );
    let Some(program) = namespaced(&script) else { return };
    let done = run(&node, &mirror, &program, &["--wait", "300ms"]).end().await;
    done.fails(13, &["is full", "4 MiB more are needed", "2 MiB are free"]);
    assert!(done.said.contains("there is no room yet"), "{done:?}");
    let running = run(&node, &mirror, &program, &["--wait", "1m"]);
    until(|| running.said().contains("there is no room yet")).await;
    fs::write(&evict, "").unwrap();
    running.end().await.succeeds();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_fills_up_under_way() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    mirror.once("model.safetensors", Fault::Hold(1 << 20));
    let (fill, filled) = (node.beside("fill"), node.beside("filled"));
    let script = format!(
        "{mount}
        (until [ -e {fill} ]; do sleep 0.02; done
         cat /dev/zero > {model}/other 2>/dev/null || true
         touch {filled}) &",
        mount = tmpfs(&node, "size=16m"),
        model = node.model().display(),
        fill = fill.display(),
        filled = filled.display(),
    );
    let Some(program) = namespaced(&script) else { return };
    let running = run(&node, &mirror, &program, &["--timeout=30s"]);
    until(|| mirror.served_of("model.safetensors") >= 1 << 20).await;
    fs::write(&fill, "").unwrap();
    until(|| filled.exists()).await;
    mirror.release();
    running.end().await.fails(13, &["is full", "MiB more are needed", "0 B are free"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_files() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    let Some(program) = namespaced(&tmpfs(&node, "size=64m,nr_inodes=5")) else { return };
    run(&node, &mirror, &program, &[]).end().await.fails(13, &["is full"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_volume_will_do_for_what_is_there() {
    let (node, mirror) = (Node::new(), Mirror::of(model()).await);
    node.get(&mirror, &[]).await.succeeds();
    let model = node.model();
    let (model, script) = (model.display(), "mount --bind -o ro");
    let Some(program) = namespaced(&format!("{script} {model} {model}")) else { return };
    run(&node, &mirror, &program, &[]).end().await.succeeds();
    let done = run(&node, &mirror, &program, &["--files", "config.json"]).end().await;
    done.fails(1, &["Read-only file system", "fsGroup"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_volume_without_the_link_that_is_needed() {
    let (node, mirror) = (Node::new(), Mirror::of(vec![("m.gguf", noise(3, 1000))]).await);
    node.get(&mirror, &["--one-file"]).await.succeeds();
    let model = node.model();
    let (model, script) = (model.display(), "mount --bind -o ro");
    let Some(program) = namespaced(&format!("{script} {model} {model}")) else { return };
    run(&node, &mirror, &program, &["--one-file"]).end().await.succeeds();
    fs::remove_file(node.path(".berth/model.gguf")).unwrap();
    let parts = ["cannot make the link", ".berth/model.gguf", "Read-only file system"];
    run(&node, &mirror, &program, &["--one-file"]).end().await.fails(1, &parts);
    run(&node, &mirror, &program, &["--files", "m.gguf"]).end().await.fails(1, &["Read-only"]);
}
