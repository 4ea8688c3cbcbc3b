# `make` lists the targets. All of them work from a fresh clone on Debian 12; as root they install what they miss.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
export VENV
bin := $(VENV)/bin
# Two workers: more would only wait for the Nix daemons and containers that the tests start.
pytest := $(bin)/python -m pytest -n 2 --dist loadgroup
benchmarks := $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))

.PHONY: help setup demo test test-fast test-vm soak fuzz real vm lint format bench pyz docs clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## make .venv with kingpost and what its tests need
	@tools/setup test

demo: setup ## render examples/homelab into build/demo and say who reaches what, at which address
	@$(bin)/kingpost generate examples/homelab/topology.toml -o build/demo
	@echo
	@$(bin)/kingpost matrix examples/homelab/topology.toml

test: setup real ## run every test but test-vm; at its end it says what it could not run here, and why
	@$(pytest) -m "not vm"

test-fast: setup ## run the tests that start no real program
	@$(pytest) -m "not real and not vm"

real: setup ## make Nix, Docker and rclone ready for tests/real (root installs Debian's packages)
	@tests/real/provide --install

test-vm: setup real vm ## boot the checks of checks/ on emulated machines, one after the other
	@$(bin)/python -m pytest -m vm tests/vm

soak: setup real vm ## repair stores damaged at random, killed at every step, and cut off from power at 20 random moments
	@KINGPOST_EXAMPLES=$${KINGPOST_EXAMPLES:-200} KINGPOST_SOAK_STEPS=$${KINGPOST_SOAK_STEPS:-60} \
	  $(pytest) tests/real/test_storefix_random.py tests/real/test_storefix_killed_fetching.py
	@KINGPOST_POWER_CUTS=$${KINGPOST_POWER_CUTS:-20} $(bin)/python -m pytest -s -m vm tests/vm/test_soak.py

fuzz: setup ## look with atheris for input that breaks the audit; FUZZ_SECONDS each target (120)
	@$(bin)/python -c 'import atheris' 2>/dev/null || $(bin)/python -m pip install --quiet atheris
	@$(bin)/python -m tests.fuzz.run --seconds $${FUZZ_SECONDS:-120}

vm: ## make QEMU and a Debian guest ready for tests/vm (as root)
	@tests/vm/provide --install

lint: ## check style and types
	@tools/setup lint
	@tools/lint

format: ## rewrite what the formatter would
	@tools/setup lint
	@$(bin)/ruff format
	@$(bin)/ruff check --fix

bench: setup ## measure, as ratios within one run
	@status=0; for benchmark in $(benchmarks); do \
	  echo "== $$benchmark"; $(bin)/python "$$benchmark" || status=1; \
	done; exit $$status

pyz: setup ## build dist/kingpost-store-fix.pyz, the store repair in one file
	@mkdir -p dist
	@tools/build-pyz dist/kingpost-store-fix.pyz

docs: setup ## write what is made from the code: the pages of checks, verdicts and options, and checks/rendered
	@$(bin)/python -m kingpost.topology.checks > docs/checks.md
	@$(bin)/python -m kingpost.report.reference > docs/verdicts.md
	@$(bin)/python -m tools.modules_reference > docs/modules.md
	@$(bin)/python -m tools.rendered_checks

clean: ## delete what the other targets made, but not .venv
	rm -rf build dist generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
