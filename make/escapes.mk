# Public weaknesses, tried on old runtimes that are built from their published sources.
.PHONY: escapes

escapes: deps build ## public weaknesses of runtimes and the kernel, alone and under Palisade, on twelve versions of runc (root, an hour)
	PALISADE_ESCAPES=all REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 180m -v -run 'TestConfirm' ./internal/escapes
