# One way to do each thing. CI calls the same targets: .ci/run is `make test` on a machine that has nothing yet.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What takes minutes to build and is the same for every clone is kept here: the test cluster, llama-server, tools.
export BERTH_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/berth

# The Go toolchain that is installed, never one that it would download. Nothing in Go here needs C.
export GOTOOLCHAIN := local
export CGO_ENABLED := 0

# Cargo is always asked for the whole workspace: dependencies are compiled for the features that the chosen
# packages ask for, so another choice would compile half of them once more.
cargo_build := cargo build --locked --workspace --bins
cargo_test := cargo test --locked --workspace
binaries := $(abspath $(or $(CARGO_TARGET_DIR),target))/debug

# Integration tests by name, those that need a cluster and those that do not.
test_names = $(foreach file,$(wildcard $(1:%=%/tests/*.rs) $(1:%=%/tests/*/main.rs)),\
  --test $(basename $(notdir $(patsubst %/main.rs,%,$(file)))))
plain_tests := $(call test_names,crds operator/*)
e2e_tries ?= 1
cluster_tests := $(call test_names,e2e)

# Our programs for their images: static, so that the image holds nothing else, and without the paths of this machine, so
# that whoever builds it with the same compiler gets the same bytes. Random numbers come from the system call: a static
# program cannot look the C library's function up, and would need /dev/random in its image.
target := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
static_binaries := $(abspath $(or $(CARGO_TARGET_DIR),target))/$(target)/release
cargo_home := $(or $(CARGO_HOME),$(HOME)/.cargo)
static_flags := -Ctarget-feature=+crt-static --cfg getrandom_backend="linux_getrandom" \
  --remap-path-prefix=$(CURDIR)=/berth --remap-path-prefix=$(cargo_home)=/cargo
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The names by which a kubelet looks for `berth-operator` and `berth-fetch`, the chart's defaults.
IMAGE ?= docker.io/library/berth-operator:$(version)
FETCH_IMAGE ?= docker.io/library/berth-fetch:$(version)
image_files := $(abspath $(or $(CARGO_TARGET_DIR),target))/image

# Built for speed: it measures.
bench = $(abspath $(or $(CARGO_TARGET_DIR),target))/release/berth-bench

# What the tests and the demo run.
export BERTH_OPERATOR ?= $(binaries)/berth-operator

cargo_deny_version := 0.20.2
cargo_deny := $(BERTH_CACHE)/cargo-deny-$(cargo_deny_version)/bin/cargo-deny

helm_version := v4.3.1
helm := $(BERTH_CACHE)/helm-$(helm_version)/bin/helm

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##### The two that matter

.PHONY: demo
demo: $(if $(filter-out 0,$(REAL)),can-be-real) tools build $(if $(filter-out 0,$(REAL)),real-node) ## A cluster with simulated GPU nodes, the operator and sample models; ends by itself (KEEP=1: stays up; REAL=1: a real node and engine instead, as root)
	@export BERTH_CLUSTER=$$(e2e/cluster/build.sh) HELM=$(helm)
	exec $(binaries)/demo

.PHONY: test
test: tools ## Every test
	@$(MAKE) check-fmt
	$(MAKE) --jobs=4 build-llama-server test-go test-rust test-chart
	$(MAKE) deny test-e2e

.PHONY: test-full
test-full: tools ## Every test, with those that take long, and with cargo-deny
	@$(MAKE) $(cargo_deny)
	BERTH_IDLE_SECONDS=300 $(MAKE) test e2e_flags='-- --include-ignored'

##### Their parts

.PHONY: test-rust
test-rust: lint check-generated ## Lints, generated files, and tests that need no cluster
	@$(cargo_test) --lib --bins $(plain_tests)
	$(cargo_test) --doc

.PHONY: bench
bench: build-bench ## The benchmarks: estimates beside what engines print, their constants, a real llama-server, the time they take; placement beside other policies, a fleet under load
	@$(bench) vram
	$(bench) fit --check
	$(bench) llama
	$(bench) speed
	$(bench) placement
	$(bench) fleet

.PHONY: build-bench
build-bench:
	@cargo build --locked --release --package berth-bench

.PHONY: test-go
test-go: build-cluster ## Formatting, vet and tests of the test cluster
	@cd e2e/cluster
	unformatted=$$(gofmt -l .)
	[ -z "$$unformatted" ] || { echo "not formatted, run 'make fmt': $$unformatted" >&2; exit 1; }
	# With the flags of the build, or all of Kubernetes is compiled once more.
	go vet -trimpath ./...
	go test -trimpath ./...

.PHONY: test-chart
test-chart: build $(helm) ## Tests of the Helm chart: what it renders and refuses, and its life in a cluster
	@HELM=$(helm) PYTHONDONTWRITEBYTECODE=1 python3 -m unittest discover --buffer --start-directory charts/test

.PHONY: test-e2e
test-e2e: build $(if $(filter 0,$(shell id -u)),real-node) ## Tests against a real API server; as root with a real node too
	@export BERTH_CLUSTER=$$(e2e/cluster/build.sh) HELM=$(helm)
	[ -n "$(cluster_tests)" ] || { echo "there are no tests in e2e/tests" >&2; exit 1; }
	# Every file is run, whatever became of the one before. With e2e_tries=2 a file that failed is run once more, as
	# on a machine of others a test can run out of time; what failed at first is named at the end.
	export RUST_LIB_BACKTRACE=0
	failed= again=
	for test in $(filter-out --test,$(cluster_tests)); do
	  for try in $$(seq $(e2e_tries)); do
	    if $(cargo_test) --test "$$test" $(e2e_flags); then continue 2; fi
	    [ "$$try" = $(e2e_tries) ] || again="$$again $$test"
	  done
	  failed="$$failed $$test"
	done
	[ -z "$$again" ] || echo "FAILED AT FIRST, and tried again:$$again" >&2
	[ -z "$$failed" ] || { echo "FAILED:$$failed" >&2; exit 1; }

.PHONY: build
build: ## The operator, the demo and the test cluster, side by side
	@$(MAKE) --jobs=2 build-rust build-cluster

.PHONY: build-rust
build-rust:
	@$(cargo_build)

.PHONY: build-cluster
build-cluster:
	@e2e/cluster/build.sh >/dev/null

.PHONY: build-llama-server
build-llama-server: ## llama-server, and whether its arguments are those that we published
	@mkdir -p "$(BERTH_CACHE)"
	log=$(BERTH_CACHE)/llama-server.log
	echo "llama-server: building it if it is not there yet; the log is $$log" >&2
	e2e/engines/llama-server.sh >/dev/null 2>"$$log" || { tail -n 40 "$$log" >&2; exit 1; }
	# The arguments that we render are checked against this list: it is the binary's own.
	e2e/engines/llama-server-flags.sh | diff -u operator/render/tests/published/llama-server-*.txt - ||
	  { echo "the published argument list is not what the binary says" >&2; exit 1; }

.PHONY: can-be-real
can-be-real:
	@[ "$$(id -u)" = 0 ] || { echo "a real node needs root: it makes namespaces, mounts and control groups" >&2; exit 1; }
	for command in containerd ctr runc nft nsenter; do
	  command -v "$$command" >/dev/null ||
	    { echo "a real node needs $$command; e2e/cluster/install-real-node.sh installs what Debian has" >&2; exit 1; }
	done

# The operator's image is one for tests: e2e/images/build.sh says how it differs from that of `make image`.
.PHONY: real-node
real-node: can-be-real $(helm) ## What runs on a real node: images of llama-server and of the operator, from the sources as they are
	@e2e/cluster/build.sh --real-node >/dev/null
	echo "images of llama-server and of the operator: building what is not there yet, at first some minutes" >&2
	e2e/images/build.sh llama-server operator fetch >/dev/null

.PHONY: tools
tools:
	@.ci/tools

# Built only once for all clones; nice, because it is built beside what people wait for.
$(helm):
	@echo "building helm $(helm_version); the first time takes some minutes" >&2
	nice env GOBIN="$(@D).$$$$" go install -trimpath -ldflags '-s -w' helm.sh/helm/v4/cmd/helm@$(helm_version)
	mkdir -p "$(@D)"
	mv "$(@D).$$$$/helm" "$@"
	rmdir "$(@D).$$$$"

# On the stable toolchain: libFuzzer with the compiler's own coverage counters, no sanitizer (our code has no unsafe).
# What is found is left in target/fuzz; what is worth keeping goes into the corpus, which `make test` replays.
FUZZ_RUNS ?= 10000000
fuzz_files := $(abspath $(or $(CARGO_TARGET_DIR),target))/fuzz
fuzz_flags := -Cpasses=sancov-module -Ccodegen-units=1 $(addprefix -Cllvm-args=-sanitizer-coverage-,\
  level=4 inline-8bit-counters pc-table)

.PHONY: fuzz
fuzz: ## Fuzz the readers of model files, about an hour (FUZZ_RUNS=10000000 each)
	@for reader in safetensors gguf config; do
	  flags='$(fuzz_flags)'
	  # What is compared with what helps with bytes; JSON is changed as JSON, where it only takes time.
	  [ $$reader = config ] || flags="$$flags -Cllvm-args=-sanitizer-coverage-trace-compares"
	  files=$(fuzz_files)/$$reader
	  CARGO_TARGET_DIR="$$files" RUSTFLAGS="$$flags" nice cargo build --locked --release --bin $$reader \
	    --manifest-path operator/vram/fuzz/Cargo.toml --target $(target)
	  mkdir -p "$$files"/{corpus,found}
	  echo "$$reader: $(FUZZ_RUNS) executions" >&2
	  nice -n 19 "$$files/$(target)/release/$$reader" -runs=$(FUZZ_RUNS) -max_len=2048 -timeout=10 \
	    -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 -artifact_prefix="$$files/found/" \
	    "$$files/corpus" operator/vram/fuzz/corpus/$$reader
	done

##### The images

.PHONY: image
image: build-static ## Images of the operator and of berth-fetch as tarballs, without a container engine (IMAGE, FETCH_IMAGE=NAME:TAG)
	@case $(target) in x86_64-*) architecture=amd64;; aarch64-*) architecture=arm64;; esac
	for image in berth-operator=$(IMAGE) berth-fetch=$(FETCH_IMAGE); do
	  binary=$${image%%=*} name=$${image#*=}
	  file=$(image_files)/$$binary.tar
	  digest=$$(.ci/image "$(static_binaries)/$$binary" "$$name" "$$architecture" "$$file")
	  echo "$$name@$$digest, $$(($$(stat -c %s "$$file") / 1024)) KiB: $$file"
	done

# Each package alone: what ships has the features that it asks for, not those that the other or the tests ask for.
.PHONY: build-static
build-static: ## The operator and berth-fetch as static binaries
	@export CARGO_TARGET_$(shell tr a-z- A-Z_ <<<"$(target)")_RUSTFLAGS='$(static_flags)'
	for package in berth-operator berth-fetch; do
	  nice cargo build --locked --package "$$package" --release --target $(target)
	done

##### Generated files

.PHONY: chart
chart: build-rust $(helm) ## Write the CustomResourceDefinitions from the types, and what the Helm chart and they give
	@$(binaries)/crdgen crds/yaml
	charts/generate $(helm)

.PHONY: docs
docs: build-rust ## Write the reference pages that are made from code
	@$(binaries)/docgen docs

# Where the measured cases are (`BERTH_SHARED`, else ../shared); a test says if the page is old. With RECORD=1 a real
# llama-server is asked anew.
.PHONY: bench-docs
bench-docs: build-bench ## Write docs/vram-figures.md and its picture (RECORD=1: ask llama-server anew)
	@$(if $(filter-out 0,$(RECORD)),$(bench) llama --record operator/bench/llama.json >/dev/null)
	$(bench) docs --llama operator/bench/llama.json --output docs

# The definitions are in the chart too, so there is no writing the one without the other.
.PHONY: crds
crds: chart ## The same as make chart

.PHONY: check-generated
check-generated: build-rust $(helm) ## Fail if a generated file is not current
	@fresh=$$(mktemp -d)
	trap 'rm -rf "$$fresh"' EXIT
	$(binaries)/crdgen "$$fresh/crds"
	$(binaries)/docgen "$$fresh/docs"
	for page in "$$fresh"/docs/*; do
	  diff -u "docs/$$(basename "$$page")" "$$page" || { echo "docs are not what the code gives: run 'make docs'" >&2; exit 1; }
	done
	diff -ru crds/yaml "$$fresh/crds" || { echo "crds/yaml is not what crds/src gives: run 'make chart'" >&2; exit 1; }
	charts/generate $(helm) "$$fresh"
	cp charts/manifests/00-namespace.yaml "$$fresh/charts/manifests"
	for folder in berth/templates/crds manifests test/golden; do
	  diff -ru "charts/$$folder" "$$fresh/charts/$$folder" ||
	    { echo "charts/$$folder is not what the chart and crds/yaml give: run 'make chart'" >&2; exit 1; }
	done

##### Style

.PHONY: fmt
fmt: ## Format everything
	@cargo fmt --all
	gofmt -w e2e/cluster

.PHONY: check-fmt
check-fmt:
	@cargo fmt --all --check

.PHONY: lint
lint: ## Clippy, warnings are errors
	@cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: deny
deny: ## Licences and origins of dependencies (ADVISORIES=1: known holes too, from github.com)
	@if [ -x "$(cargo_deny)" ]; then deny="$(cargo_deny)"
	elif deny=$$(command -v cargo-deny); then :
	else
	  echo "SKIPPED: licences and origins of dependencies; cargo-deny is not installed, make test-full installs it" >&2
	  exit 0
	fi
	"$$deny" --locked check --hide-inclusion-graph $(if $(ADVISORIES),advisories) bans licenses sources

$(cargo_deny):
	@echo "installing cargo-deny $(cargo_deny_version) into $(BERTH_CACHE)"
	cargo install --quiet --locked --version $(cargo_deny_version) --root "$(BERTH_CACHE)/cargo-deny-$(cargo_deny_version)" cargo-deny

.PHONY: clean
clean: ## Remove what was built here
	@cargo clean
	echo "the test cluster, llama-server and tools stay for other clones in $(BERTH_CACHE); remove it to build them anew"
