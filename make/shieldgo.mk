# Shield, the Go side: volumes, evidence, sessions.
.PHONY: shield-volumes shield-evidence bench-shieldgo

shield-volumes: ## 100 000 corrupted volumes, and a longer run of crashes: true data or a clean error
	SEALFS_CORRUPTIONS=$${SEALFS_CORRUPTIONS:-100000} SEALFS_CRASH_ROUNDS=$${SEALFS_CRASH_ROUNDS:-120} \
		$(GO) test -count=1 -timeout 60m -v -run 'TestEvilHost|TestMixAndMatch|TestCrash|TestFull|TestModel' ./shield/sealfs

shield-evidence: ## every bit of every evidence vector flipped
	ATTEST_ALL_BITS=1 $(GO) test -count=1 -timeout 60m -v -run 'TestConfirmBitFlips' ./shield/attest

bench-shieldgo: ## sealing, reading and writing volumes, in processor time
	$(GO) test -run '^$$' -bench . -benchtime 1s -count 3 ./shield/sealfs
