# Every command a person needs. Each sets up the locked environment in .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
# Without byte code every start compiles vLLM's and Ray's sources again: many seconds each.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup setup-gpu clients demo test test-slow monitoring-check lint types k8s-check format demo-checkpoint small-checkpoint eval-demo eval-refine eval-small bench bench-full results grid fairness tiers gateway-cost soak chaos fuzzers fuzz fuzz-worker lock clean

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.venv/.installed: config/requirements/cpu.lock pyproject.toml scripts/bootstrap.sh
	@PYTHON="$(PYTHON)" sh scripts/bootstrap.sh cpu
	@touch $@

setup: .venv/.installed  ## install the locked CPU environment into .venv

setup-gpu:  ## install the locked GPU environment into .venv instead
	@PYTHON="$(PYTHON)" sh scripts/bootstrap.sh gpu
	@touch .venv/.installed

.venv-clients/.installed: config/requirements/clients.lock | .venv/.installed
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-clients
	@$(BIN)/uv pip install -q --python .venv-clients/bin/python --no-deps -r $<
	@touch $@

clients: .venv-clients/.installed  ## install the clients that the examples show, apart from the server

.venv-fuzz/.installed: config/requirements/fuzz.lock | .venv/.installed
	@$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-fuzz
	@$(BIN)/uv pip install -q --python .venv-fuzz/bin/python --no-deps -r $<
	@touch $@

fuzzers: .venv-fuzz/.installed  ## install the fuzzers, apart from the server

demo: setup  ## start everything on this machine and serve the demo's checkpoint
	@$(BIN)/loragen up --config config/demo.yaml --examples checkpoints/demo/prompts.json

# One process serves the stack's tests while another runs the fast ones.
test: setup clients fuzzers  ## run the test suite; the real stack is in it
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow" \
	  tests/e2e tests/unit tests/contract tests/parity tests/integration

test-slow: setup  ## run the tests that need starts of their own: workers' ends, several workers at once
	@$(BIN)/python -m pytest -m slow tests

monitoring-check: setup  ## ask a real Prometheus the dashboard's queries, and provoke alerts
	@sh scripts/prometheus.sh
	@$(BIN)/python -m pytest tests/monitoring

lint: setup  ## check style, formatting and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: setup  ## check types
	@$(BIN)/mypy

k8s-check: setup  ## check the Kubernetes manifests; CRD=FILE holds them to KubeRay's definition too
	@$(BIN)/python -m k8s.check $(if $(CRD),--crd "$(CRD)")

format: setup  ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

demo-checkpoint: setup  ## train the demo's checkpoint from scratch into runs/demo (hours on 2 cores; resumable)
	@OMP_WAIT_POLICY=passive $(BIN)/python -m loragen.training demo --out runs/demo --seed 0

small-checkpoint: setup  ## train the small checkpoint, which tests serve, from scratch (21 minutes on 2 cores)
	@OMP_WAIT_POLICY=passive $(BIN)/python -m loragen.training small --out checkpoints/small --seed 0

eval-demo: setup  ## measure the demo's checkpoint and its controls (an hour), or CHECKPOINT=FOLDER into its demo_eval.json
	@$(BIN)/python -m loragen.training evaluate --checkpoint $(or $(CHECKPOINT),checkpoints/demo) --out $(or $(CHECKPOINT),bench/results)/demo_eval.json

eval-refine: setup  ## measure what refining the demo's tasks brings, and on a pool without generator (30 minutes)
	@$(BIN)/python -m loragen.training evaluate-refine --checkpoint checkpoints/demo --out bench/results/refine_eval.json

eval-small: setup  ## measure the small checkpoint and its controls into bench/results/small_eval.json
	@$(BIN)/python -m loragen.training evaluate --checkpoint checkpoints/small --catalogue small --gated 130 --out bench/results/small_eval.json

bench: setup  ## measure serving with recipes against prompts in minutes; says where it loses
	@$(BIN)/python -m bench.summary --out bench/results/serving_summary.json

bench-full: setup  ## measure the same at full length, hours; what is measured already is kept
	@$(BIN)/python -m bench.full --out bench/results/full

results: setup  ## write the figures of README.md, docs/results.md and its plots from bench/results
	@$(BIN)/python -m bench.readme
	@$(BIN)/python -m bench.results_page
	@$(BIN)/python -m bench.plots

grid: setup  ## train and measure generators by families of rules and pool width (45 minutes; resumable)
	@$(BIN)/python -m loragen.training grid --checkpoint checkpoints/demo --out bench/results/grid.json

fairness: setup  ## measure what one tenant notices of another, an hour on an idle machine
	@$(BIN)/python -m bench.fairness --out bench/results/fairness.json
	@$(BIN)/python -m bench.shadowing --out bench/results/shadowing.json

tiers: setup  ## measure a million tasks in one Redis: memory, and time to resolve one (10 minutes, 10 GB)
	@$(BIN)/python -m bench.tiers --out bench/results/tiers.json

gateway-cost: setup  ## measure the gateway's CPU time per request beside a bare pass-through
	@$(BIN)/python -m bench.gateway --profile --out bench/results/gateway.json

soak: setup  ## let 5,000 tasks come and go with restarts, and look for what grows (25 minutes)
	@$(BIN)/python -m bench.soak --out bench/results/soak.json

chaos: setup  ## break two gateways, two workers, Ray and Redis under load; 15 minutes, best as root
	@$(BIN)/python -m tests.chaos --out bench/results/chaos_summary.json

fuzz: setup fuzzers  ## look for what breaks the APIs and all that reads bytes from outside (16 minutes)
	@.venv-fuzz/bin/python -m tests.fuzz --out bench/results/fuzz_summary.json

fuzz-worker: setup  ## hold 10,000 random requests to real workers to merged weights (12 minutes)
	@$(BIN)/python -m tests.differential --out bench/results/differential_summary.json

lock: setup  ## resolve the dependencies again into config/requirements/*.lock
	@sh scripts/lock.sh

clean:  ## remove the environment and the local state
	rm -rf .venv .venv-clients .venv-fuzz .loragen
