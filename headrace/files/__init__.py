"""What a file that others made may look like before a library reads it.

Every check reads little, runs nothing of what it reads, and takes little memory whatever the file says.

    names              names that stay inside their folder, folders without links
    safetensors_file   headers that describe the file they are in, and nothing else
    onnx_file          ONNX whose weights are all in the one file
    openvino_file      OpenVINO IR whose weights are all in the file beside it
    model_folder       Hugging Face directories: kinds of files, keys of their JSON
    unpacking          compressed files that are not much larger inside
"""
