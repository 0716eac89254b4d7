# What other people test runtimes with, and what people do with engines.
.PHONY: suites

suites: deps build ## tests of runc and crun, flows of Docker, Compose, Podman and Buildah, alone and under Palisade (root, half an hour)
	PALISADE_SUITES=all REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 120m -v -run 'TestConfirm' ./internal/suites
