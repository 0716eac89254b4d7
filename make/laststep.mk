# The last step in the container.
.PHONY: step-kernel bench-step

step-kernel: deps ## all tests of the last step in Debian's kernel with AppArmor (three minutes)
	PALISADE_FULL=1 REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 30m -v -run 'TestKernelStep' ./internal/laststep

bench-step: ## a program started through the last step beside one without, in turns
	$(GO) test -run '^$$' -bench 'BenchmarkStep$$|BenchmarkProgram$$' -benchtime 1000x ./internal/laststep ./internal/handover

bench:: bench-step
