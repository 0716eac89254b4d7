# Host detection and probes.
.PHONY: measure-control

measure-control: ## run the probes under runc and rewrite the control that results are compared with
	$(GO) test -count=1 ./internal/probe -run 'TestKernelControl' -measure-control
