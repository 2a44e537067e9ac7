//! What engines say they served is counted, and written down before an operator ends. Engines are
//! stand-ins here: a page on an address of this machine's own that a simulated pod is said to have.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use berth_crds::llm_deployment::UsageStatus;
use berth_e2e::{
    AuditLog, Cluster, Fleet, NAMESPACE, Nodes, Operator, Options,
    audit::OPERATOR,
    wait::{Look, patience, until},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Where vLLM has its metrics.
const PORT: u16 = 8000;

/// A page that says what it is told to say.
struct Engine {
    address: IpAddr,
    page: Arc<Mutex<String>>,
}

impl Engine {
    /// Every process has a loopback address of its own, so that tests run side by side.
    async fn start() -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = IpAddr::from(Ipv4Addr::new(127, 77, high, low));
        let listener = TcpListener::bind((address, PORT)).await?;
        let page = Arc::new(Mutex::new(String::new()));
        let served = Arc::clone(&page);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let mut request = [0; 4096];
                // Whoever hangs up early does not stop the page.
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        Ok(Self { address, page })
    }

    /// As vLLM does.
    fn says(&self, prompt: u32, generated: u32) {
        let text = format!(
            "vllm:prompt_tokens_total{{engine=\"0\"}} {prompt}\n\
             vllm:generation_tokens_total{{engine=\"0\"}} {generated}\n\
             vllm:num_requests_running{{engine=\"0\"}} 2\n\
             vllm:num_requests_waiting{{engine=\"0\"}} 1\n\
             vllm:kv_cache_usage_perc{{engine=\"0\"}} 0.5\n\
             vllm:time_to_first_token_seconds_sum{{engine=\"0\"}} {}\n\
             vllm:time_to_first_token_seconds_count{{engine=\"0\"}} {generated}\n",
            f64::from(generated) / 4.0,
        );
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

async fn usage(cluster: &Cluster) -> Result<UsageStatus> {
    let status = cluster.llm("chat").await?.status.context("no status")?;
    status.usage.context("no usage")
}

/// Waits until the operator has counted so many tokens.
async fn counted(operator: &Operator, generated: f64) -> Result<()> {
    let of = [("namespace", NAMESPACE), ("deployment", "chat")];
    until(format!("{generated} tokens are counted"), patience(), async || {
        let metrics = operator.metrics().await?;
        let kind = [of[0], of[1], ("kind", "generated")];
        let is = metrics.sum("berth_deployment_tokens_total", &kind)?;
        let first = metrics.sum("berth_deployment_time_to_first_token_seconds_total", &of)?;
        let all = (is - generated).abs() < 0.5 && (first - generated / 4.0).abs() < 0.01;
        Ok(if all { Look::Done(()) } else { Look::NotYet(format!("{is} after {first} s")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_is_written_before_the_end_and_counted_on_after_it() -> Result<()> {
    let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", 1).h100(2)])).await?;
    cluster.install().await?;
    let often = ["--scrape-interval", "1s"];
    let operator = Operator::start(&cluster, Options::default().with(&often)).await?;
    let engine = Engine::start().await?;
    engine.says(100, 1000);
    cluster.apply_llm("chat", json!({"gpu": {"count": 1, "memory": "60Gi"}})).await?;
    cluster.ready("chat", 1).await?;
    let pod = cluster.pod("chat").await?.name_any();
    let ip = engine.address.to_string();
    let patch = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
    cluster.api::<Pod>().patch_status(&pod, &PatchParams::default(), &Patch::Merge(patch)).await?;

    counted(&operator, 1000.0).await?;
    until("the first checkpoint", patience(), async || {
        Ok(match usage(&cluster).await?.generated_tokens {
            1000 => Look::Done(()),
            other => Look::NotYet(other.to_string()),
        })
    })
    .await?;
    let metrics = operator.metrics().await?;
    let chat = [("namespace", NAMESPACE), ("deployment", "chat")];
    for name in ["berth_deployment_kv_cache_use_ratio", "berth_deployment_mean_kv_cache_use_ratio"]
    {
        ensure!((metrics.sum(name, &chat)? - 0.5).abs() < 1e-9, "{name}");
    }

    // Too little for a checkpoint, but the end is one.
    engine.says(101, 1010);
    counted(&operator, 1010.0).await?;
    ensure!(usage(&cluster).await?.generated_tokens == 1000, "a checkpoint for so little");
    operator.terminate().await?;
    let last = usage(&cluster).await?;
    ensure!((last.prompt_tokens, last.generated_tokens) == (101, 1010), "{last:?}");
    let first = last.first_tokens.context("no first tokens")?;
    ensure!((first.milliseconds, first.requests) == (252_500, 1010), "{first:?}");

    // It served on without an operator; the next one counts that, and nothing twice.
    engine.says(102, 1020);
    let operator = Operator::start(&cluster, Options::named("second").with(&often)).await?;
    counted(&operator, 1020.0).await?;
    operator.terminate().await?;

    // One that has nothing new to say says nothing.
    let operator = Operator::start(&cluster, Options::named("third").with(&often)).await?;
    counted(&operator, 1020.0).await?;
    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    operator.terminate().await?;
    let writes = audit.writes(OPERATOR, mark)?;
    ensure!(writes.is_empty(), "written at the end though nothing was served: {}", writes.len());
    cluster.passed()
}
