# seccomp: the long forms of what `make test` runs in short.

.PHONY: seccomp-bench seccomp-differential

seccomp-bench: ## size, speed and compile time of seccomp filters beside libseccomp, and installing them beside runc's
	$(GO) test -run '^$$' -bench 'Compile|Libseccomp|Install|Large' -benchtime 200x ./seccomp

seccomp-differential: ## 500 000 cases a profile against libseccomp at both levels and runc's stub
	PALISADE_FULL=1 REQUIRE_ORACLES=1 $(GO) test -count=1 -v -timeout 60m -run 'TestConfirm' ./seccomp

oracle:: seccomp-differential

FUZZTIME ?= 30s
seccomp-fuzz: ## the seccomp fuzz targets alone
	$(GO) test -run '^$$' -fuzz '^FuzzProfile$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 20x ./seccomp
	$(GO) test -run '^$$' -fuzz '^FuzzCompileEval$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 20x ./seccomp
	$(GO) test -run '^$$' -fuzz '^FuzzCBPF$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 20x ./cbpf
