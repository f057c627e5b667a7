# A CPU image of the command line. Build and run it in a clone:
#   docker build -t transferability .
#   docker run --rm --user "$(id -u)" -v "$PWD/outputs:/work" transferability -m experiment=demo attack=fgsm,bim source=vgg_small,resnet_small
FROM python:3.13-slim

COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY . /tmp/clone
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "/tmp/clone[joblib]"

# Any user may write here; mount a folder to keep cache/, outputs/ and mlruns/.
WORKDIR /work
RUN chmod 777 /work
ENV HOME=/work
ENTRYPOINT ["transferability"]
