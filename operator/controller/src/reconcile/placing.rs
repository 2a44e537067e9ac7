//! Which nodes the missing pods go to. Pure: reads the ledger, and says what to claim.
//!
//! Order of what gives way: the full context on the fewest GPUs that are free now, then waiting
//! for a node that could hold it, and only where no node ever could, half the context. So a
//! revision that is not frozen yet is frozen here, by its first placement.

use std::collections::BTreeMap;

use berth_crds::llm_deployment::{Placement as Asked, Strategy, Toleration, Vendor};
use berth_planner::{
    CacheNeed, Gpus, NodeName, OccupantId, Overlay, Placement, Refusal, Request, Resources, best,
    could_ever, refusal,
};
use berth_render::{CachedModel, Site, Template, revision::hash, vendor};

use super::{advice::Advice, intend::Need, wish::Wish};
use crate::cache::shelves::cache_key;

/// Where one missing pod goes.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Hash of the revision that it is of: the one that is kept, never computed anew.
    pub revision: String,
    /// What it is rendered from.
    pub template: Template,
    /// The node, and what is claimed there.
    pub placement: Placement,
    /// Whether it takes over the GPUs of the pod that it replaces, on that pod's node.
    pub in_place: bool,
}

/// Why a missing pod goes nowhere.
#[derive(Clone, Debug)]
pub struct Misfit {
    /// What was asked for.
    pub request: Request,
    /// Node by node, grouped.
    pub refusal: Refusal,
    /// Whether a node of this cluster could hold it once it is free.
    pub ever: bool,
    /// What would make it fit, where the revision is not frozen yet.
    pub would_fit: Vec<Advice>,
}

impl Misfit {
    /// A request that finds no node.
    fn of(overlay: &Overlay<'_>, request: Request) -> Box<Self> {
        let refusal = refusal(overlay, &request);
        let ever = could_ever(overlay.fleet(), &request).is_ok();
        Box::new(Self { request, refusal, ever, would_fit: Vec::new() })
    }

    /// The model offers no way to be split that could be tried.
    fn nothing_tried() -> Box<Self> {
        let refusal = Refusal { reasons: Vec::new(), nearest: None };
        Box::new(Self { request: Request::default(), refusal, ever: false, would_fit: Vec::new() })
    }
}

/// What is fixed about a deployment's requests beside the template.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// How models come to their nodes.
    pub site: &'a Site,
    /// Close together, or far apart.
    pub strategy: Strategy,
    /// Nodes to leave out, with the reason.
    pub avoid: BTreeMap<NodeName, String>,
    /// Nodes that hold replicas of this deployment, and how many.
    pub siblings: BTreeMap<NodeName, u32>,
}

impl<'a> Terms<'a> {
    /// The terms of a deployment.
    pub fn new(
        namespace: &'a str,
        site: &'a Site,
        asked: &Asked,
        avoid: BTreeMap<NodeName, String>,
    ) -> Self {
        Self { namespace, site, strategy: asked.strategy, avoid, siblings: BTreeMap::new() }
    }
}

/// Places a pod of the revision with that hash.
pub fn place_frozen(
    overlay: &Overlay<'_>,
    (revision, template): (&str, &Template),
    need: &Need,
    terms: &Terms<'_>,
) -> Result<Placed, Box<Misfit>> {
    let request = request(template, need, terms);
    match find(overlay, &request, need) {
        Some((placement, in_place)) => Ok(Placed {
            revision: revision.to_owned(),
            template: template.clone(),
            placement,
            in_place,
        }),
        None => Err(Misfit::of(overlay, request)),
    }
}

/// Places the first pod of a revision that is not frozen yet, and so decides its context, GPU
/// count and vendor.
pub fn place_first(
    overlay: &Overlay<'_>,
    wish: &Wish,
    need: &Need,
    terms: &Terms<'_>,
) -> Result<Placed, Box<Misfit>> {
    try_first(overlay, wish, need, terms).ok_or_else(|| nearest(overlay, wish, need, terms))
}

/// Where [`place_first`] places, without the reasons where it does not. Each context on all GPU counts
/// and vendors: the fewest GPUs that are free now, and of the vendors the better fit.
pub fn try_first(
    overlay: &Overlay<'_>,
    wish: &Wish,
    need: &Need,
    terms: &Terms<'_>,
) -> Option<Placed> {
    for &context in &wish.contexts {
        let mut ever = false;
        for &gpus in &wish.degrees {
            let mut of_vendors: Vec<Placed> = Vec::new();
            for &vendor in &wish.vendors {
                let Ok(template) = wish.template(context, gpus, vendor) else { continue };
                let request = request(&template, need, terms);
                match find(overlay, &request, need) {
                    Some((placement, in_place)) => {
                        let revision = hash(&template);
                        of_vendors.push(Placed { revision, template, placement, in_place });
                    }
                    None => ever = ever || could_ever(overlay.fleet(), &request).is_ok(),
                }
            }
            let best = of_vendors.into_iter().min_by_key(|at| (at.in_place, at.placement.score));
            if best.is_some() {
                return best;
            }
        }
        if ever {
            return None;
        }
    }
    None
}

/// The request of a pod of a template.
pub fn request(template: &Template, need: &Need, terms: &Terms<'_>) -> Request {
    let mut avoid = terms.avoid.clone();
    avoid.extend(need.avoid.clone());
    let by_custom = berth_planner::Toleration {
        key: vendor::profile(template.vendor).taint.to_owned(),
        operator: berth_planner::Operator::Exists,
        ..berth_planner::Toleration::default()
    };
    let users = template.tolerations.iter().map(toleration);
    let cached = cached(template, terms.site);
    let mut node_selector = template.node_selector.clone();
    node_selector.extend(template.source.node_label());
    Request {
        gpus: template.gpus,
        vram_per_gpu: template.estimate.total,
        vram_on: template
            .measured
            .iter()
            .map(|(product, estimate)| (product.clone(), estimate.total))
            .collect(),
        resources: resources(template, cached.as_ref()),
        cache: cached.map(|model| CacheNeed {
            key: cache_key(terms.namespace, &model.directory),
            bytes: model.bytes,
            offline: terms.site.offline,
        }),
        vendor: Some(planner_vendor(template.vendor)),
        products: template.products.clone(),
        node_selector,
        tolerations: users.chain([by_custom]).collect(),
        avoid,
        strategy: match terms.strategy {
            Strategy::Pack => berth_planner::Strategy::Pack,
            Strategy::Spread => berth_planner::Strategy::Spread,
        },
        siblings: terms.siblings.clone(),
    }
}

/// What a pod of a template requests beside GPUs.
pub fn resources(template: &Template, cached: Option<&CachedModel>) -> Resources {
    let asked = template.resources_with(cached);
    Resources::of_pod(asked.cpu, asked.memory, asked.ephemeral_storage)
}

/// What a pod of a template keeps in its node's cache.
pub fn cached(template: &Template, site: &Site) -> Option<CachedModel> {
    site.cache.as_ref().and_then(|_| template.source.cached(template.weight_bytes))
}

/// The vendor in the planner's words.
pub fn planner_vendor(vendor: Vendor) -> berth_planner::Vendor {
    match vendor {
        Vendor::NVIDIA => berth_planner::Vendor::Nvidia,
        Vendor::AMD => berth_planner::Vendor::Amd,
    }
}

fn toleration(toleration: &Toleration) -> berth_planner::Toleration {
    use berth_crds::llm_deployment::{Effect, Operator};
    berth_planner::Toleration {
        key: toleration.key.clone().unwrap_or_default(),
        operator: match toleration.operator {
            Operator::Equal => berth_planner::Operator::Equal,
            Operator::Exists => berth_planner::Operator::Exists,
        },
        value: toleration.value.clone().unwrap_or_default(),
        effect: toleration.effect.map(|effect| match effect {
            Effect::NoSchedule => berth_planner::Effect::NoSchedule,
            Effect::PreferNoSchedule => berth_planner::Effect::PreferNoSchedule,
            Effect::NoExecute => berth_planner::Effect::NoExecute,
        }),
    }
}

/// What to tell of a wish that goes nowhere: the misfit at the longest context that a node could ever
/// offer, else at the longest of all.
fn nearest(overlay: &Overlay<'_>, wish: &Wish, need: &Need, terms: &Terms<'_>) -> Box<Misfit> {
    let mut longest = None;
    for &context in &wish.contexts {
        let misfit = nearest_at(overlay, wish, context, need, terms);
        if misfit.ever {
            return misfit;
        }
        longest.get_or_insert(misfit);
    }
    longest.unwrap_or_else(Misfit::nothing_tried)
}

/// Of the misfits at one context that of the fewest GPUs that a node could ever offer.
fn nearest_at(
    overlay: &Overlay<'_>,
    wish: &Wish,
    context: u32,
    need: &Need,
    terms: &Terms<'_>,
) -> Box<Misfit> {
    let all = wish.degrees.iter().flat_map(|gpus| wish.vendors.iter().map(move |by| (*gpus, *by)));
    let templates = all.filter_map(|(gpus, vendor)| wish.template(context, gpus, vendor).ok());
    let mut misfits: Vec<Box<Misfit>> =
        templates.map(|template| Misfit::of(overlay, request(&template, need, terms))).collect();
    let first_ever = misfits.iter().position(|misfit| misfit.ever);
    let nearest = first_ever.or_else(|| {
        // Nothing ever fits: tell of the most GPUs that a node has, where each needs the least.
        let nearness = |misfit: &Misfit| {
            let gpus = i64::from(misfit.request.gpus);
            if gpus > most_gpus(overlay, &misfit.request) { (0, -gpus) } else { (1, gpus) }
        };
        (0..misfits.len()).rev().max_by_key(|&index| nearness(&misfits[index]))
    });
    match nearest {
        Some(index) => misfits.swap_remove(index),
        None => Misfit::nothing_tried(),
    }
}

/// The most GPUs that one node has of the vendor and products asked for.
fn most_gpus(overlay: &Overlay<'_>, request: &Request) -> i64 {
    let wanted = |gpus: &&Gpus| {
        let product = |product: &String| product.eq_ignore_ascii_case(&gpus.product);
        request.vendor.is_none_or(|vendor| vendor == gpus.vendor)
            && (request.products.is_empty() || request.products.iter().any(product))
    };
    let gpus = overlay.fleet().nodes().filter_map(|node| node.gpus.as_ref());
    gpus.filter(wanted).map(|gpus| i64::from(gpus.count)).max().unwrap_or(0)
}

/// Beside free GPUs, or failing that in place of the pod that is to be replaced.
fn find(overlay: &Overlay<'_>, request: &Request, need: &Need) -> Option<(Placement, bool)> {
    if let Some(placement) = best(overlay, request) {
        return Some((placement, false));
    }
    let old = need.replaces.as_ref().filter(|_| need.in_place)?;
    let mut without = overlay.clone();
    if !without.vacate(&OccupantId::from(old.uid.as_str())) {
        return None;
    }
    let placement = best(&without, request)?;
    (placement.node == old.node).then_some((placement, true))
}
