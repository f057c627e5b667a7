# A CPU image of the command line. Build and run it in a clone:
#   docker build -t transferability .
#   docker run --rm --user "$(id -u)" -v "$PWD/outputs:/work" transferability -m experiment=demo attack=fgsm,bim source=vgg_small,resnet_small
FROM python:3.13-slim AS build
ENV PATH=/venv/bin:$PATH
RUN python -m venv /venv
COPY constraints.txt /clone/
RUN pip install --no-cache-dir --constraint /clone/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY . /clone
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /clone
RUN pip install --no-cache-dir --constraint /clone/constraints.txt "$(ls /wheels/*.whl)[joblib]"

# The image has the installed wheel alone: the clone stays in the stage above.
FROM python:3.13-slim
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH HOME=/work

# Any user may write here; mount a folder to keep cache/, outputs/ and mlruns/.
WORKDIR /work
RUN chmod 777 /work
ENTRYPOINT ["transferability"]
