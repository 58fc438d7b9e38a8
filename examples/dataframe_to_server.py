"""From a DataFrame to an answer over HTTP: trains on a click log, keeps the run, serves it, and asks for the scores of two items.

pip install -e '.[serve]' pandas
python examples/dataframe_to_server.py log.parquet runs/monday
"""

import atexit
import json
import subprocess
import sys
from urllib.request import Request, urlopen

import pandas as pd

from dcrnn_fast import FunnelClassifier

frame = pd.read_parquet(sys.argv[1])  # columns: ts, user_id, item_id, price, and the labels click and order
model = FunnelClassifier(tasks=["click", "order"], time="ts", group="user_id").fit(frame)
print(model.metrics_["order"]["auc"], model.predict_proba(frame.head()), sep="\n")
command = [sys.executable, "-m", "dcrnn_fast", "serve", "--port", "0", "--run", model.save(sys.argv[2])]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
atexit.register(server.terminate)
url = server.stdout.readline().split()[-1]  # listening on http://127.0.0.1:PORT
body = {"columns": {"item_id": [1, 2], "price": [9.5, 12.0]}, "shared": {"user_id": 7}}
print(urlopen(Request(f"{url}/v1/score", json.dumps(body).encode(), {"Content-Type": "application/json"})).read().decode())
