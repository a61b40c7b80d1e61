# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet -c constraints.txt
export HF_HUB_DISABLE_PROGRESS_BARS = 1

help: ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/demo ## the whole story on texts that come with it; leaves runs/demo/report.html
	$(BIN)/distillnb demo

test: .venv/dev ## set everything up, then run all notebooks and all tests
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2
	HF_HUB_OFFLINE=1 TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests

bench: .venv/bench ## speed side by side: the original's way, ours, fastText, scikit-learn; writes benchmarks/results.json
	$(BIN)/python -m benchmarks

compare: .venv-compare/ready ## accuracy, size and speed beside what people would pick instead; writes benchmarks/compare.json
	.venv-compare/bin/python -m benchmarks.compare $(ARGS)

versions: ## the two tutorials with other versions: WITH=.github/colab.txt, or the lowest that are allowed
	$(PYTHON) -m venv .venv-versions
	@echo '*' > .venv-versions/.gitignore
	$(PYTHON) scripts/oldest.py > .venv-versions/oldest.txt
	.venv-versions/bin/python -m pip install --quiet -c $(or $(WITH),.venv-versions/oldest.txt) -e ".[demo,fast]" jupyter_core ipykernel nbclient
	TQDM_DISABLE=1 .venv-versions/bin/jupyter execute --timeout=3600 nbs/tutorials/walkthrough.ipynb nbs/tutorials/own_data.ipynb

notebooks: .venv/dev ## run every notebook again, slow cells too, and store the outputs
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=3600 nbs/[0-9]*.ipynb nbs/tutorials/*.ipynb nbs/index.ipynb
	$(MAKE) export

export: .venv/dev ## notebooks -> package, clean notebooks, README
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python scripts/book.py stamp
	$(BIN)/python scripts/readme.py
	$(BIN)/python scripts/pictures.py
	$(BIN)/python scripts/reference.py

preview: .venv/dev ## the site as plain pages, into _preview
	rm -rf _proc
	$(BIN)/python scripts/preview.py _preview

docs: .venv/dev ## the site, into _docs (needs Quarto)
	@command -v quarto > /dev/null || { echo "make docs needs Quarto: install it from https://quarto.org, then try again."; exit 1; }
	@touch README.md  # newer than the index, so that nbdev does not write it anew with Quarto
	$(BIN)/nbdev_docs

clean: ## forget the environment, the cache and all results
	rm -rf .venv .venv-compare .venv-versions runs nbs/runs nbs/tutorials/runs build dist _docs _proc _preview *.egg-info

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "distillnb needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/demo: .venv/python settings.ini setup.py constraints.txt
	$(INSTALL) -e ".[demo,fast]"
	@touch $@

.venv/dev: .venv/python settings.ini setup.py constraints.txt
	$(INSTALL) -e ".[dev]"
	@touch $@ .venv/demo

.venv/bench: .venv/python settings.ini setup.py constraints.txt
	$(INSTALL) -e ".[bench]"
	@touch $@

# An environment of its own: model2vec needs an older transformers than the one in constraints.txt.
.venv-compare/ready: .venv/python settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv-compare
	@echo '*' > .venv-compare/.gitignore
	.venv-compare/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	.venv-compare/bin/python -m pip install --quiet -e ".[compare]"
	@touch $@

.PHONY: help demo test bench compare versions notebooks export preview docs clean
