//! The models of the demo: applied from `docs/examples`, and shown as people look at them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use berth_crds::LLMDeployment;
use berth_e2e::{
    Cluster, NAMESPACE,
    apply::{apply, objects},
};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

use crate::paint::{bold, columns, wrapped};

/// Applies all examples, and returns the names of the `LLMDeployments` among them.
pub async fn apply_examples(cluster: &Cluster, folder: &Path) -> Result<Vec<String>> {
    // Named by the models whose repositories are gated.
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub-token"},
        "stringData": {"token": "not-a-token"},
    });
    apply(&cluster.client, &secret, NAMESPACE).await?;
    let mut files: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut names = Vec::new();
    for file in files {
        for mut object in objects(&fs::read_to_string(&file)?)? {
            if object["kind"] == "LLMDeployment" {
                names.push(object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
                load_for_a_while(&mut object, 2 + names.len() % 4);
            }
            apply(&cluster.client, &object, NAMESPACE)
                .await
                .with_context(|| file.display().to_string())?;
        }
    }
    ensure!(!names.is_empty(), "no models in {}", folder.display());
    Ok(names)
}

/// Simulated nodes load a model at once; some seconds are nearer to the truth.
fn load_for_a_while(object: &mut Value, seconds: usize) {
    object["spec"]["podTemplate"]["annotations"]["simulate.berth-e2e.dev/load-seconds"] =
        format!("{seconds}s").into();
}

/// What `kubectl get llm` prints: by kubectl itself where there is one.
pub async fn table(cluster: &Cluster) -> Result<()> {
    let output = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&cluster.kubeconfig)
        .args(["get", "llm", "--all-namespaces"])
        .output();
    if let Ok(output) = output
        && output.status.success()
    {
        print!("{}", String::from_utf8_lossy(&output.stdout));
        return Ok(());
    }
    let titles =
        ["NAMESPACE", "NAME", "MODEL", "ENGINE", "READY", "GPUS", "VRAM", "COST/H", "STATUS"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for llm in cluster.all::<LLMDeployment>().list(&ListParams::default()).await? {
        let status = llm.status.clone().unwrap_or_default();
        let reason = llm.condition("Ready").map(|condition| condition.reason.clone());
        rows.push(vec![
            llm.namespace().unwrap_or_default(),
            llm.name_any(),
            status.model.map(|model| model.name).unwrap_or_default(),
            status.resolved.map(|resolved| format!("{:?}", resolved.engine)).unwrap_or_default(),
            status.ready.unwrap_or_default(),
            status.gpus.to_string(),
            status.vram.unwrap_or_default(),
            status.cost.map(|cost| cost.hourly).unwrap_or_default(),
            reason.unwrap_or_default(),
        ]);
    }
    print!("{}", columns(&rows, &[]));
    Ok(())
}

/// Why a model has no place.
pub async fn explain(cluster: &Cluster, name: &str) -> Result<()> {
    let llm = cluster.llm(name).await?;
    let placed = llm.condition("Placed").context("no condition Placed")?;
    println!("{}", bold(&format!("{name}: {}", placed.reason)));
    println!("{}", wrapped(&placed.message, 96, "  "));
    Ok(())
}

/// The part of a status that tells what was chosen.
pub async fn status(cluster: &Cluster, name: &str) -> Result<()> {
    let llm = cluster.llm(name).await?;
    let status = serde_json::to_value(llm.status.context("no status")?)?;
    let mut extract = serde_json::Map::new();
    for field in ["ready", "gpus", "vram", "model", "resolved", "placements", "cost", "endpoint"] {
        extract.insert(field.to_owned(), status[field].clone());
    }
    extract.insert("estimate".to_owned(), json!({"summary": status["estimate"]["summary"]}));
    print!("{}", serde_saphyr::to_string(&extract)?);
    Ok(())
}
