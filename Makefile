# Each target is explained by `make help`, which reads the `##` behind it. The recipes that are
# more than a few commands lie in tests/scripts, to be read and run by themselves.

.DEFAULT_GOAL := help
SCRIPTS := tests/scripts
PEERS := tests/peers/Cargo.toml
POLLERS := epoll poll select

.PHONY: help
help: ## This list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: ## The echo server under 400 verified connections for 5 s; ends by itself
	@$(SCRIPTS)/demo.sh

.PHONY: compare
compare: ## The server's models side by side: a table and charts (SWEEP=1: at 1 to 2,000 connections)
	@$(SCRIPTS)/compare.sh $(if $(SWEEP),--sweep)

.PHONY: test
test: ## All tests, the examples and the documentation's code; under ten minutes
	@$(SCRIPTS)/test.sh

.PHONY: test-pollers
test-pollers: ## All tests on each of Linux's pollers (POLLERS="poll select": on those only)
	@for poller in $(POLLERS); do $(SCRIPTS)/test.sh RUNTIME_POLLER=$$poller || exit 1; done

.PHONY: check-targets
check-targets: ## Type-check for FreeBSD, NetBSD, OpenBSD, macOS (installs a compiler on Debian)
	@$(SCRIPTS)/check_targets.sh

.PHONY: test-aarch64
test-aarch64: ## Core tests and an echo run on an emulated aarch64 (installs qemu on Debian)
	@$(SCRIPTS)/test_aarch64.sh

.PHONY: lint
lint: ## rustfmt and clippy; a warning is an error
	@$(SCRIPTS)/lint.sh

.PHONY: doc
doc: ## The documentation as HTML; a broken link is an error
	@$(SCRIPTS)/doc.sh

.PHONY: bench
bench: ## The comparison with other runtimes, as one table of ratios (QUICK=1: a glance)
	cargo run --quiet --release --manifest-path $(PEERS) -- $(if $(QUICK),--quick)

.PHONY: ci
ci: ## What the continuous integration runs: all of these but demo and compare, and bench with QUICK=1
	bash .ci/run
