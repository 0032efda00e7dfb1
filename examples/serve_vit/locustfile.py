# SPDX-License-Identifier: Apache-2.0
"""Users who ask about a picture again and again, for Locust: PICTURE=picture.jpg locust -H http://localhost:8501"""

import base64
import json
import os
from pathlib import Path

from locust import FastHttpUser, task

PICTURE = base64.urlsafe_b64encode(Path(os.environ.get("PICTURE", "picture.jpg")).read_bytes()).decode()
BODY = json.dumps({"signature_name": "serving_default", "instances": [PICTURE]})


class Asks(FastHttpUser):
    @task
    def predict(self) -> None:
        headers = {"content-type": "application/json"}
        path = "/v1/models/hf-vit:predict"
        with self.client.post(path, data=BODY, headers=headers, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
            elif set(answer.json()["predictions"][0]) != {"label", "confidence"}:
                answer.failure(f"another answer: {answer.text[:200]}")
