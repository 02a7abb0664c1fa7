import logging

# What pydicom logs quotes elements' values and files' paths: names of patients, for all it knows. Not by
# `disabled`, which whatever configures logging later takes back: MLflow does, setting up a database.
logging.getLogger("pydicom").addFilter(lambda record: False)
