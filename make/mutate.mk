# Mutation testing: which small changes of a package no test notices.
.PHONY: mutate mutate-fast

# The edges where something is decided. Behind = are packages whose tests count too.
MUTATE ?= ./svirt=./internal/registry/bolt ./internal/registry/bolt ./internal/registry/socket ./internal/registry/authority \
	./landlock ./apparmor/decide ./selinux/ss:decide.go,xperm.go,constraint.go,transition.go,context.go,row.go,cache.go,socket.go \
	./seccomp:filter.go,compile.go,emit.go,tree.go,decision.go,verdict.go ./internal/effective ./internal/state ./internal/launch ./internal/engine/oci
MUTATE_MIN ?= 85

mutate: ## change the decision edges in small ways, and fail where tests notice fewer than 85 of a hundred (half an hour)
	$(GO) run ./internal/mutate -min $(MUTATE_MIN) $(MUTATE)

mutate-fast: ## the same with SAMPLE (60) mutants of each package, drawn by SEED (1)
	$(GO) run ./internal/mutate -sample $(or $(SAMPLE),60) -seed $(or $(SEED),1) $(MUTATE)
