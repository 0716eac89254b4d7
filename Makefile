# Palisade. `make run` and `make test` install what they need; see README.md.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED := 0
GO ?= go
BIN := bin
LDFLAGS := -s -w
COMMANDS := $(notdir $(wildcard cmd/*))
TOOLS := -modfile=internal/tools.mod

.PHONY: fmt help build run test check deps deps-run oracle kernel bench fuzz generate clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+::?.*## /{printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build all commands, static, into ./bin
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(COMMANDS))
	@# The last step is part of the others; as a file it is for looking at.
	install -m 755 internal/laststep/step-$$($(GO) env GOARCH).bin $(BIN)/palisade-init

deps-run:
	@./make/install run

deps: ## install what the tests need (apt or dnf when root; otherwise print the line)
	@./make/install run test

run: deps-run build ## show a real container running confined, what each layer enforces, and proof
	@./make/demo

test: deps build ## all tests, those against other implementations and in virtual machines included
	$(GO) test -count=1 -timeout 60m ./...

check: ## vet, formatting, staticcheck, generated code, unreached functions, known vulnerabilities
	@./make/check

oracle:: deps ## differential tests in full, against other people's implementations; nothing may be missing
	REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -run 'TestConfirm' ./...

kernel:: deps ## tests in real kernels under QEMU; nothing may be missing
	REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -run 'TestKernel' ./...

bench:: build ## benchmarks, each beside its peer in the same run
	$(GO) test -run '^$$' -bench . -benchtime 1s -timeout 60m ./...

fuzz:: ## every fuzz target for FUZZTIME (default 30s)
	@./make/fuzz

fmt: ## format all Go code
	@git ls-files "*.go" | grep -v /testdata/ | xargs $$($(GO) tool $(TOOLS) -n gofumpt) -w

generate: ## regenerate generated code
	$(GO) generate ./...

clean: ## remove what was built
	rm -rf $(BIN)

-include make/*.mk
