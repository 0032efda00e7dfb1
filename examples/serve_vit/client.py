# SPDX-License-Identifier: Apache-2.0
"""The article's client, with the picture out of a file: python client.py PICTURE [HOST:PORT]"""

import base64
import json
import sys

import requests

with open(sys.argv[1], "rb") as file:
    bytes_inputs = file.read()
b64str = base64.urlsafe_b64encode(bytes_inputs).decode("utf-8")
data = json.dumps({"signature_name": "serving_default", "instances": [b64str]})

json_response = requests.post(
    f"http://{sys.argv[2] if len(sys.argv) > 2 else 'localhost:8501'}/v1/models/hf-vit:predict",
    headers={"content-type": "application/json"},
    data=data,
    timeout=60,
)
print(json.loads(json_response.text))
