# Labels: what is too long for `make test`.

.PHONY: svirt-model svirt-kill svirt-kernel

svirt-model: ## ten million random steps of the label registry against a model
	SVIRT_STEPS=10000000 $(GO) test -count=1 -timeout 60m -run TestModel -v ./svirt

svirt-kill: ## kill a loaded label daemon a thousand times
	SVIRT_KILLS=1000 $(GO) test -count=1 -timeout 60m -run TestKill -v ./store/socket

svirt-kernel: ## Docker and palisade run in a whole Debian, enforcing, with the container policy (root)
	REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -run 'TestKernel' -v ./selinux/container
