# The shield's data plane: longer runs than those of make test.
.PHONY: shield-conformance shield-evil shield-tcb shield-bench

shield-conformance: deps build ## the same programs shielded and bare, on host files and on a sealed volume
	REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 30m -v -run 'TestSameOutput|TestSealed|TestServers|TestNoPlaintext|TestConfirmReading' ./shield/shim

shield-evil: deps ## a host that lies: a million forged results, a hundred thousand damaged volumes, a stop at every write
	REQUIRE_ORACLES=1 SHIELD_EVIL_RESULTS=$(or $(RESULTS),1000000) SHIELD_EVIL_VOLUMES=$(or $(VOLUMES),100000) \
		$(GO) test -count=1 -timeout 3h -v -run 'TestEvil|TestCrash' ./shield/shim
	REQUIRE_ORACLES=1 $(GO) test -run '^$$' -fuzz '^FuzzEvilHost$$' -fuzztime $(or $(SCRIPTS),100000)x -fuzzminimizetime 20x ./shield/shim

shield-bench: ## the shield beside the bare programs and gocryptfs, in one run
	$(GO) test -run "^$$" -bench . -benchtime 1x -timeout 60m ./shield/shim

shield-tcb: ## lines of C and assembly that have to be trusted (without empty lines and comments)
	@cat shield/shim/src/*.[chS] | awk ' \
	  /^[ \t]*\/\*.*\*\/[ \t]*$$/ {next} /^[ \t]*\/\*/ {c=1} c {if (/\*\//) c=0; next} NF {n++} \
	  END {print n " lines of C and assembly, at most 5000"; exit n > 5000}'
