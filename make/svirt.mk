# Labels: what is too long for `make test`.

.PHONY: svirt-model svirt-kill svirt-kernel bench-labels

svirt-model: ## ten million random steps of the label registry against a model
	SVIRT_STEPS=10000000 $(GO) test -count=1 -timeout 60m -run TestModel -v ./svirt

SVIRT_KILLS ?= 1000
SVIRT_ENGINE_KILLS ?= 100

svirt-kill: ## kill a loaded label daemon SVIRT_KILLS times, palisade run, relabel and label, and palisade-oci below SVIRT_ENGINE_KILLS containers of each engine
	SVIRT_KILLS=$(SVIRT_KILLS) $(GO) test -count=1 -timeout 60m -run TestKill -v ./internal/registry/socket
	SVIRT_ENGINE_KILLS=$(SVIRT_ENGINE_KILLS) REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 180m -run 'TestKill' -v ./internal/engine/oci ./internal/container ./selinux/relabel

svirt-kernel: ## every engine in a whole Debian, enforcing, with the container policy: all pairs of containers (root, minutes)
	REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -run 'TestKernel' -v ./selinux/container

bench-labels: ## durable allocations, empty and full, and what labels add to a container's start (root)
	$(GO) test -run '^$$' -bench 'BenchmarkReserve$$' -benchtime 10x ./internal/registry/socket
	$(GO) test -run '^$$' -bench 'BenchmarkLabels$$' -benchtime 60x ./internal/engine/oci

bench:: bench-labels
