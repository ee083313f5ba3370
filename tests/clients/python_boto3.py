import os

import boto3
from botocore.config import Config

endpoint, bucket, key = os.environ["URL"].rsplit("/", 2)
s3 = boto3.client(
    "s3",
    region_name="eu-west-1",
    aws_access_key_id="an example's",
    aws_secret_access_key="an example's",
    endpoint_url=endpoint,
    verify=os.environ["CA_FILE"],
    config=Config(proxies={"https": os.environ["HTTPS_PROXY"]}, s3={"addressing_style": "path"}),
)
answer = s3.get_object(Bucket=bucket, Key=key)
print(answer["ResponseMetadata"]["HTTPStatusCode"], answer["Body"].read().decode())
