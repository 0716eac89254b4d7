# Shield, the Go side: volumes, evidence, sessions.
.PHONY: shield-volumes shield-evidence shield-reader shield-sessions-kill bench-shieldgo

shield-volumes: ## 100 000 corrupted volumes, and a longer run of crashes: true data or a clean error
	SEALFS_CORRUPTIONS=$${SEALFS_CORRUPTIONS:-100000} SEALFS_CRASH_ROUNDS=$${SEALFS_CRASH_ROUNDS:-120} \
		$(GO) test -count=1 -timeout 60m -v -run 'TestEvilHost|TestMixAndMatch|TestCrash|TestFull|TestModel' ./shield/sealfs

shield-evidence: ## every bit of every evidence vector flipped
	ATTEST_ALL_BITS=1 $(GO) test -count=1 -timeout 60m -v -run 'TestConfirmBitFlips' ./shield/attest

shield-reader: ## the format's second reader, written from its document alone, on 4 000 changed volumes
	REQUIRE_ORACLES=1 SEALFS_READER_FLIPS=$${SEALFS_READER_FLIPS:-2000} $(GO) test -count=1 -timeout 60m -v -run 'TestConfirmReader' ./shield/sealfs

shield-sessions-kill: ## a session service killed with SIGKILL 200 times under load
	SESSION_KILLS=$${SESSION_KILLS:-200} $(GO) test -count=1 -timeout 30m -v -run 'TestKill' ./shield/session

bench-shieldgo: ## sealing, reading and writing volumes, in processor time
	$(GO) test -run '^$$' -bench . -benchtime 1s -count 3 ./shield/sealfs
