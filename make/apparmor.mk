# AppArmor, the compiler's side.
.PHONY: apparmor-parsers apparmor-decisions apparmor-corpus apparmor-containers bench-apparmor

apparmor-decisions: deps ## 120 000 decisions of Debian's kernel against ours, profiles of every rule class
	REQUIRE_ORACLES=1 PALISADE_DECISIONS=$(or $(DECISIONS),120000) \
		$(GO) test -count=1 -timeout 60m -v -run 'TestKernelDecisions' ./apparmor/securityfs

apparmor-containers: deps ## containers with profiles of their own, by palisade run and palisade-oci, killed KILLS times; and in Debian's newest kernel
	REQUIRE_ORACLES=1 PALISADE_KILLS=$(or $(KILLS),20) $(GO) test -count=1 -timeout 60m -v -run 'TestKernelOwnProfileEngines' ./internal/launch/profile
	REQUIRE_ORACLES=1 PALISADE_SUITE=trixie-backports $(GO) test -count=1 -timeout 60m -v -run 'TestKernelOwnProfileRun' ./internal/launch/profile

apparmor-parsers: deps ## languages and sizes beside the compilers of Debian's next releases (4.1, 5.0)
	REQUIRE_ORACLES=1 PALISADE_PARSER_SUITES=1 $(GO) test -count=1 -timeout 30m -v -run 'TestConfirmSuites' ./apparmor/compile

apparmor-corpus: deps ## languages and sizes of every accepted profile of the shared tests, against apparmor_parser
	REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -v -run 'TestConfirmCorpus|TestConfirmRules|TestConfirmDebianProfiles' ./apparmor/compile

bench-apparmor: ## text to binary policy, one container's profile, 142 Debian profiles, in processor time, beside apparmor_parser in the same run
	$(GO) test -run '^$$' -bench . -benchtime 1s -timeout 30m ./apparmor/compile ./apparmor/dfa ./internal/launch/profile
