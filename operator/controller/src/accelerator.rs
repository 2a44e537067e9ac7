//! Whether an engine runs on the GPUs that it was given. Pure.

use berth_crds::llm_deployment::AcceleratorStatus;
use berth_render::engine::log::{Accelerator, CPU};

/// What status says of it, and of which start of the engine.
pub fn status(accelerator: Accelerator, restarts: i32) -> AcceleratorStatus {
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    AcceleratorStatus {
        device: accelerator.device,
        layers: accelerator.layers.map(|layers| count(layers.on_gpu)),
        of_layers: accelerator.layers.map(|layers| count(layers.of)),
        restarts,
    }
}

/// Whether all of the model is on GPUs.
pub fn is_on(accelerator: &AcceleratorStatus) -> bool {
    accelerator.device != CPU && accelerator.layers == accelerator.of_layers
}

/// What is odd about it, if anything.
pub fn complaint(accelerator: &AcceleratorStatus) -> Option<String> {
    if is_on(accelerator) {
        return None;
    }
    let AcceleratorStatus { device, layers, of_layers, .. } = accelerator;
    let of = match (layers, of_layers) {
        (Some(layers), Some(of)) => format!(", {layers} of {of} layers are on a GPU"),
        _ => String::new(),
    };
    Some(if device == CPU {
        format!("serves from the CPU{of}: its engine found no GPU that it can use")
    } else {
        format!("serves partly from the CPU{of} ({device})")
    })
}

#[cfg(test)]
mod tests {
    use berth_render::engine::log::Layers;

    use super::*;

    fn on(device: &str, layers: Option<(u32, u32)>) -> AcceleratorStatus {
        let layers = layers.map(|(on_gpu, of)| Layers { on_gpu, of });
        status(Accelerator { device: device.to_owned(), layers }, 0)
    }

    #[test]
    fn what_serves_from_the_cpu_is_told_of() {
        for (accelerator, told) in [
            (on("CUDA0", Some((33, 33))), None),
            (on("GPU", None), None),
            (
                on("CPU", Some((0, 33))),
                Some(
                    "serves from the CPU, 0 of 33 layers are on a GPU: its engine found no GPU that \
                     it can use",
                ),
            ),
            (on("CPU", None), Some("serves from the CPU: its engine found no GPU that it can use")),
            (
                on("CUDA0", Some((20, 33))),
                Some("serves partly from the CPU, 20 of 33 layers are on a GPU (CUDA0)"),
            ),
        ] {
            assert_eq!(complaint(&accelerator).as_deref(), told, "{accelerator:?}");
            assert_eq!(is_on(&accelerator), told.is_none(), "{accelerator:?}");
        }
    }
}
