//! Operators are killed, stopped and doubled at any moment: no GPU is claimed twice, no pod is
//! duplicated or lost, and one of them leads.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use berth_e2e::{
    AuditLog, Cluster, Fleet, Nodes, Observer, Operator, Options, Random,
    audit::OPERATOR,
    operator::lease,
    process::Signal,
    wait::{Look, patience, throughout, until},
};
use serde_json::{Value, json};

/// Short, so that the next one leads soon.
const SHORT_LEASE: u32 = 3;

const DEPLOYMENTS: [&str; 5] = ["ant", "bee", "cat", "dog", "eel"];

async fn start(nodes: u32) -> Result<Cluster> {
    let cluster = Cluster::start(&Fleet::of([Nodes::new("elm", nodes).h100(8)])).await?;
    cluster.install().await?;
    Ok(cluster)
}

fn one_gpu(replicas: i32) -> Value {
    json!({"replicas": replicas, "gpu": {"count": 1, "memory": "60Gi"}})
}

async fn deploy_nothing(cluster: &Cluster) -> Result<()> {
    for name in DEPLOYMENTS {
        cluster.apply_llm(name, one_gpu(0)).await?;
    }
    Ok(())
}

/// A few scale-ups in a row, counted in `wanted`.
async fn scale_some(
    cluster: &Cluster,
    random: &mut Random,
    wanted: &mut BTreeMap<&'static str, i32>,
    most: u64,
) -> Result<u64> {
    let count = random.within(1, 4).min(most);
    for _ in 0..count {
        let name = *random.pick(&DEPLOYMENTS);
        let replicas = wanted.entry(name).or_insert(0);
        *replicas += 1;
        cluster.scale(name, *replicas).await?;
    }
    Ok(count)
}

/// Everything that was wanted is there, once, and nothing else ever was.
async fn all_is_there(
    cluster: &Cluster,
    observer: Observer,
    wanted: &BTreeMap<&'static str, i32>,
) -> Result<()> {
    for (name, replicas) in wanted {
        cluster.ready(name, *replicas).await?;
    }
    cluster.settled().await?;
    let seen = observer.finish()?;
    for (name, replicas) in wanted {
        let pods = seen.pods_seen.get(*name).map_or(0, Vec::len);
        ensure!(
            i32::try_from(pods) == Ok(*replicas),
            "{name}: {pods} pods were made for {replicas} replicas: {:?}",
            seen.pods_seen.get(*name)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_points_of_fifty_scale_ups() -> Result<()> {
    const SCALE_UPS: u64 = 50;
    let cluster = start(8).await?;
    let mut random = Random::from_environment();
    let mut operator = Operator::start(&cluster, Options::named("op-0").lease(SHORT_LEASE)).await?;
    deploy_nothing(&cluster).await?;
    let observer = Observer::start(&cluster).await;
    let mut wanted = BTreeMap::new();
    let (mut done, mut kills) = (0, 0);
    while done < SCALE_UPS {
        done += scale_some(&cluster, &mut random, &mut wanted, SCALE_UPS - done).await?;
        // At any point of what it does now: before, between and after its writes.
        tokio::time::sleep(Duration::from_millis(random.within(0, 700))).await;
        operator.kill();
        kills += 1;
        cluster.check_invariants().await?;
        let options = Options::named(&format!("op-{kills}")).lease(SHORT_LEASE);
        operator = Operator::spawn(&cluster, options).await?;
        // Now and then also while it takes over.
        if random.within(0, 3) > 0 {
            operator.wait_leading(&cluster).await?;
        } else {
            tokio::time::sleep(Duration::from_millis(random.within(0, 4_000))).await;
        }
    }
    eprintln!("{done} scale-ups, {kills} kills");
    operator.wait_leading(&cluster).await?;
    all_is_there(&cluster, observer, &wanted).await?;
    operator.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_standby_takes_over_at_random_points() -> Result<()> {
    let cluster = start(8).await?;
    let mut random = Random::from_environment();
    let mut leader = Operator::start(&cluster, Options::named("op-0").lease(SHORT_LEASE)).await?;
    deploy_nothing(&cluster).await?;
    let observer = Observer::start(&cluster).await;
    let mut wanted = BTreeMap::new();
    for round in 1..=8 {
        let options = Options::named(&format!("op-{round}")).lease(SHORT_LEASE);
        let mut standby = Operator::spawn(&cluster, options).await?;
        scale_some(&cluster, &mut random, &mut wanted, 4).await?;
        tokio::time::sleep(Duration::from_millis(random.within(0, 500))).await;
        leader.kill();
        // What comes now meets nobody, or somebody whose caches are of before.
        scale_some(&cluster, &mut random, &mut wanted, 4).await?;
        standby.wait_leading(&cluster).await?;
        cluster.check_invariants().await?;
        leader = standby;
    }
    all_is_there(&cluster, observer, &wanted).await?;
    leader.terminate().await?;
    cluster.passed()
}

async fn holder(cluster: &Cluster) -> Result<String> {
    Ok(lease(cluster).await?.holder_identity.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_acts() -> Result<()> {
    let cluster = start(4).await?;
    let (first, second) = tokio::join!(
        Operator::spawn(&cluster, Options::named("left").lease(5)),
        Operator::spawn(&cluster, Options::named("right").lease(5)),
    );
    let (first, second) = (first?, second?);
    let leads = until("one of them leads", patience(), async || {
        let holder = holder(&cluster).await?;
        Ok(if first.is(&holder) || second.is(&holder) {
            Look::Done(holder)
        } else {
            Look::NotYet(holder)
        })
    })
    .await?;
    let (mut leader, mut standby) =
        if first.is(&leads) { (first, second) } else { (second, first) };
    leader.wait_leading(&cluster).await?;

    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    let observer = Observer::start(&cluster).await;
    let mut wanted = BTreeMap::new();
    for name in DEPLOYMENTS {
        cluster.apply_llm(name, one_gpu(4)).await?;
        wanted.insert(name, 4);
    }
    for name in DEPLOYMENTS {
        cluster.ready(name, 4).await?;
    }
    let writes = audit.writes(OPERATOR, mark)?;
    let creates = writes.iter().filter(|r| r.verb == "create" && r.object_ref.resource == "pods");
    let codes: Vec<u16> = creates.map(|request| request.response_status.code).collect();
    ensure!(codes == [201; 20], "20 pods were made with {codes:?}");
    ensure!(standby.is_running()?, "the standby has ended");
    ensure!(holder(&cluster).await? == leads, "the lease changed hands for nothing");

    // Killed, the other one takes over, with another epoch.
    let epoch = lease(&cluster).await?.lease_transitions.unwrap_or(0);
    leader.kill();
    standby.wait_leading(&cluster).await?;
    let after = lease(&cluster).await?.lease_transitions.unwrap_or(0);
    ensure!(after > epoch, "the epoch was {epoch} and is {after}");
    cluster.scale("ant", 6).await?;
    wanted.insert("ant", 6);
    all_is_there(&cluster, observer, &wanted).await?;

    // A third one, started by mistake, waits.
    let mut third = Operator::spawn(&cluster, Options::named("third").lease(5)).await?;
    let leads = holder(&cluster).await?;
    throughout("the lease stays where it is", Duration::from_secs(12), async || {
        let holder = holder(&cluster).await?;
        ensure!(holder == leads, "it went from {leads} to {holder}");
        ensure!(third.is_running()?, "the third has ended");
        Ok(())
    })
    .await?;
    third.terminate().await?;
    standby.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_gives_the_lease_back() -> Result<()> {
    let cluster = start(1).await?;
    // Longer than this test waits: were the lease kept, nobody would lead in time.
    let lease_seconds = 300;
    ensure!(patience() < Duration::from_secs(lease_seconds.into()), "BERTH_PATIENCE is too long");
    let long = |name: &str| Options::named(name).lease(lease_seconds);
    let first = Operator::start(&cluster, long("first")).await?;
    cluster.apply_llm("chat", one_gpu(1)).await?;
    cluster.ready("chat", 1).await?;
    let mut second = Operator::spawn(&cluster, long("second")).await?;
    let status = first.terminate().await?;
    ensure!(status.success(), "it ended with {status}");
    second.wait_leading(&cluster).await?;
    cluster.scale("chat", 2).await?;
    cluster.ready("chat", 2).await?;
    second.terminate().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_woken_it_writes_nothing() -> Result<()> {
    let cluster = start(2).await?;
    let mut sleeper = Operator::start(&cluster, Options::named("sleeper").lease(5)).await?;
    deploy_nothing(&cluster).await?;
    let mut wanted = BTreeMap::new();
    cluster.scale("ant", 2).await?;
    cluster.ready("ant", 2).await?;
    let observer = Observer::start(&cluster).await;
    // Asked for right before it falls asleep: it may be in the middle of it.
    cluster.scale("ant", 4).await?;
    wanted.insert("ant", 4);
    sleeper.signal(Signal::STOP)?;
    let mut second = Operator::spawn(&cluster, Options::named("second").lease(5)).await?;
    second.wait_leading(&cluster).await?;
    cluster.ready("ant", 4).await?;
    cluster.scale("bee", 3).await?;
    wanted.insert("bee", 3);
    cluster.ready("bee", 3).await?;
    let leads = holder(&cluster).await?;
    cluster.settled().await?;

    let audit = AuditLog::of(&cluster);
    let mark = audit.mark()?;
    sleeper.signal(Signal::CONT)?;
    throughout("the one that woke up does nothing", Duration::from_secs(15), async || {
        let holder = holder(&cluster).await?;
        ensure!(holder == leads, "the lease went from {leads} to {holder}");
        let writes = audit.writes(OPERATOR, mark)?;
        ensure!(writes.is_empty(), "written: {}", berth_e2e::audit::counted(&writes));
        Ok(())
    })
    .await
    .with_context(|| sleeper.log_text())?;
    all_is_there(&cluster, observer, &wanted).await?;
    // Either it ended, which its Deployment would mend, or it waits for the lease.
    if sleeper.is_running()? {
        second.terminate().await?;
        sleeper.wait_leading(&cluster).await?;
        cluster.scale("bee", 4).await?;
        cluster.ready("bee", 4).await?;
    }
    cluster.settled().await?;
    cluster.passed()
}
